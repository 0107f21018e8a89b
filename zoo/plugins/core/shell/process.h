// What is in this process besides the shell: a library of TensorRT, and CUDA's driver.
#pragma once
#include "abi.h"
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <dlfcn.h>
#include <stdexcept>
#include <string>
#include <type_traits>

namespace {

[[noreturn]] void fail(char const *format, ...)
{
    char text[512];
    va_list list;
    va_start(list, format);
    vsnprintf(text, sizeof text, format, list);
    va_end(list);
    throw std::runtime_error(text);
}

// ---- the library of TensorRT in this process ------------------------------------------------------------------------

void *tensorrt_symbol(char const *name)
{
    if (void *found = dlsym(RTLD_DEFAULT, name))
        return found;
    for (char const *kind : {"libnvinfer", "libnvinfer_lean", "libnvinfer_dispatch"})
        for (char const *generation : {"8", "9", "10", "11"})
            if (void *library = dlopen((std::string(kind) + ".so." + generation).c_str(), RTLD_LAZY | RTLD_NOLOAD))
                if (void *found = dlsym(library, name))
                    return found;
    return nullptr;
}

int tensorrt_version() // 8600, 101600 ...; 0 without one
{
    auto get = reinterpret_cast<int32_t (*)()>(tensorrt_symbol("getInferLibVersion"));
    return get ? get() : 0;
}

int tensorrt_major() { return tensorrt_version() >= 10000 ? tensorrt_version() / 10000 : tensorrt_version() / 1000; }

void complain(std::string const &text)
{
    auto get = reinterpret_cast<Logger *(*)()>(tensorrt_symbol("getLogger"));
    Logger *logger = get ? get() : nullptr; // none before a builder or a runtime exists
    if (logger)
        logger->log(1, text.c_str());
    else
        fprintf(stderr, "%s\n", text.c_str());
}

// ---- CUDA's driver --------------------------------------------------------------------------------------------------

struct Driver {
    int (*current_context)(void **);
    int (*load)(void **, void const *);
    int (*unload)(void *);
    int (*function)(void **, void *, char const *);
    int (*launch)(void *, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, void *, void **, void **);
    int (*error_name)(int, char const **);

    static Driver const &get()
    {
        static Driver driver = open();
        return driver;
    }
    void check(int code, char const *what) const
    {
        char const *name = "an unknown error";
        if (code)
            error_name(code, &name), fail("%s failed with %s", what, name);
    }

private:
    static Driver open()
    {
        char const *path = getenv("ZOO_LIBCUDA"); // tests put a driver for the CPU here
        void *library = dlopen(path ? path : "libcuda.so.1", RTLD_NOW);
        if (!library)
            fail("CUDA's driver cannot be loaded (%s)", dlerror());
        auto bind = [library](auto &call, char const *name) {
            call = reinterpret_cast<std::decay_t<decltype(call)>>(dlsym(library, name));
            if (!call)
                fail("CUDA's driver has no %s", name);
        };
        Driver d{};
        bind(d.current_context, "cuCtxGetCurrent"), bind(d.load, "cuModuleLoadData"), bind(d.unload, "cuModuleUnload");
        bind(d.function, "cuModuleGetFunction"), bind(d.launch, "cuLaunchKernel"), bind(d.error_name, "cuGetErrorName");
        return d;
    }
};

} // namespace
