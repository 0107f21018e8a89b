// For tests without a GPU: a driver of CUDA that runs kernels on the CPU, calls of a plugin's functions as TensorRT makes
// them, for each generation of it, and of the registry of a real TensorRT. An "image" is the path of a library whose
// functions run whole grids.
#include "abi.h"
#include <cstring>
#include <deque>
#include <dlfcn.h>
#include <string>
#include <vector>

#define EXPORT extern "C" __attribute__((visibility("default")))

// ---- CUDA -----------------------------------------------------------------------------------------------------------

static int launches = 0;

EXPORT int cuCtxGetCurrent(void **context) { return *context = reinterpret_cast<void *>(1), 0; }
EXPORT int cuModuleLoadData(void **module, void const *image)
{
    *module = dlopen(static_cast<char const *>(image), RTLD_NOW);
    return *module ? 0 : 200;
}
EXPORT int cuModuleUnload(void *module) { return dlclose(module); }
EXPORT int cuModuleGetFunction(void **function, void *module, char const *name)
{
    *function = dlsym(module, name);
    return *function ? 0 : 500;
}
EXPORT int cuLaunchKernel(void *function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz, unsigned,
                          void *, void **arguments, void **)
{
    launches++;
    if (gx > 0x7fffffff || gy > 65535 || gz > 65535 || bx * by * bz > 1024)
        return 1;
    unsigned const geometry[] = {gx, gy, gz, bx, by, bz};
    reinterpret_cast<void (*)(void **, unsigned const *)>(function)(arguments, geometry);
    return 0;
}
EXPORT int cuGetErrorName(int code, char const **name)
{
    *name = code == 500 ? "CUDA_ERROR_NOT_FOUND" : code == 1 ? "CUDA_ERROR_INVALID_VALUE" : "CUDA_ERROR_INVALID_IMAGE";
    return 0;
}

// ---- TensorRT -------------------------------------------------------------------------------------------------------

struct Tensor {
    int32_t type, rank;
    int64_t d[8];
    void *data;
};

struct Size {
    int64_t value;
};

// What makes symbolic dimensions, here numbers: as in TensorRT the worker behind it does the work.
struct Numbers {
    void *table = nullptr;
    struct Worker {
        void **table;
        std::deque<Size> made;
    } *worker;
};
template <int M> static Size const *constant(Numbers::Worker *worker, Extent<M> value)
{
    return &worker->made.emplace_back(Size{static_cast<int64_t>(value)});
}
static Size const *operation(Numbers::Worker *worker, int32_t kind, Size const &a, Size const &b)
{
    __int128 x = a.value, y = b.value, result = 0; // whatever overflows is cut off
    switch (kSizeOperations[kind]) {
    case '+': result = x + y; break;
    case '-': result = x - y; break;
    case '*': result = x * y; break;
    case '/': result = y ? x / y : 0; break;
    case 'c': result = y ? -(-x / y) : 0; break;
    case 'M': result = x > y ? x : y; break;
    case 'm': result = x < y ? x : y; break;
    }
    return &worker->made.emplace_back(Size{static_cast<int64_t>(result)});
}

template <int M> struct Calls {
    using P = DynamicPlugin<M>;
    static P *plugin(void *p) { return static_cast<P *>(static_cast<PluginBase<M> *>(p)); }

    static void *create(void *creator, char const *spec, int spec_size, char const *image, int image_size)
    {
        Field both[] = {{"spec", spec, 6, spec_size}, {"image", image, 6, image_size}};
        Fields all{2, both};
        return static_cast<PluginCreator<M> *>(creator)->create("test", &all);
    }
    static void *deserialize(void *creator, void const *data, size_t size)
    {
        return static_cast<PluginCreator<M> *>(creator)->deserialize("test", data, size);
    }
    static int shape(void *p, int index, Tensor const *inputs, int count, int64_t *result)
    {
        void *table[] = {nullptr, nullptr, reinterpret_cast<void *>(&constant<M>), reinterpret_cast<void *>(&operation)};
        Numbers::Worker worker{table, {}};
        Numbers builder{nullptr, &worker};
        std::vector<SymbolicShape> shapes(count);
        for (int i = 0; i < count; i++) {
            shapes[i].rank = inputs[i].rank;
            for (int k = 0; k < inputs[i].rank; k++)
                shapes[i].d[k] = &worker.made.emplace_back(Size{inputs[i].d[k]});
        }
        SymbolicShape found = plugin(p)->outputShape(index, shapes.data(), count, reinterpret_cast<SizeBuilder &>(builder));
        for (int k = 0; k < found.rank; k++)
            result[k] = found.d[k]->value;
        return found.rank;
    }
    static int run(void *p, Tensor const *tensors, int inputs, int outputs)
    {
        std::vector<TensorDesc<M>> all(inputs + outputs);
        std::vector<void *> data;
        for (int i = 0; i < inputs + outputs; i++) {
            all[i] = {{tensors[i].rank, {}}, tensors[i].type, 0, 1};
            for (int k = 0; k < tensors[i].rank; k++)
                all[i].dims.d[k] = static_cast<Extent<M>>(tensors[i].d[k]);
            data.push_back(tensors[i].data);
        }
        P *at = plugin(p);
        for (int i = 0; i < inputs + outputs; i++)
            if (!at->supports(i, all.data(), inputs, outputs))
                return 100 + i;
        if (int status = at->initialize())
            return status;
        size_t bytes = at->workspace(all.data(), inputs, all.data() + inputs, outputs);
        if (bytes > size_t(1) << 32)
            return 99;
        std::vector<char> workspace(bytes + 1, '\xAA'); // what nobody wrote must not be read
        return at->enqueue(all.data(), all.data() + inputs, data.data(), data.data() + inputs, workspace.data(), nullptr);
    }
    static int output_type(void *p, int index, int32_t const *types, int count)
    {
        return plugin(p)->outputType(index, types, count);
    }
    static size_t serialize(void *p, void *buffer)
    {
        if (buffer)
            plugin(p)->serialize(buffer);
        return plugin(p)->serializedSize();
    }
    static void *clone(void *p) { return plugin(p)->clone(); }
    static void destroy(void *p) { plugin(p)->destroy(); }
};

#define FOR_MAJOR(call) (major >= 11 ? Calls<11>::call : major == 10 ? Calls<10>::call : Calls<8>::call)

EXPORT void *plugin_create(int major, void *creator, char const *spec, int spec_size, char const *image, int image_size)
{
    return FOR_MAJOR(create(creator, spec, spec_size, image, image_size));
}
EXPORT void *plugin_deserialize(int major, void *creator, void const *data, size_t size)
{
    return FOR_MAJOR(deserialize(creator, data, size));
}
EXPORT int plugin_shape(int major, void *p, int index, Tensor const *inputs, int count, int64_t *result)
{
    return FOR_MAJOR(shape(p, index, inputs, count, result));
}
EXPORT int plugin_run(int major, void *p, Tensor const *tensors, int inputs, int outputs)
{
    return FOR_MAJOR(run(p, tensors, inputs, outputs));
}
EXPORT int plugin_output_type(int major, void *p, int index, int32_t const *types, int count)
{
    return FOR_MAJOR(output_type(p, index, types, count));
}
EXPORT size_t plugin_serialize(int major, void *p, void *buffer) { return FOR_MAJOR(serialize(p, buffer)); }
EXPORT void *plugin_clone(int major, void *p) { return FOR_MAJOR(clone(p)); }
EXPORT void plugin_destroy(int major, void *p) { FOR_MAJOR(destroy(p)); }
EXPORT int plugin_launches() { return launches; }

// ---- the registry of a real TensorRT --------------------------------------------------------------------------------

// A plugin whose answers are what it was given: whoever calls it through NVIDIA's own declarations sees whether both
// mean the same function and the same structure.
template <int M> class Echo final : public DynamicPlugin<M> {
    std::string namespace_;

public:
    int32_t interfaceVersion() const noexcept override { return 3 << 24 | 123; }
    char const *type() const noexcept override { return "Echo"; }
    char const *version() const noexcept override { return "7"; }
    int32_t outputCount() const noexcept override { return 5; }
    Dims<M> unusedOutputDims(int32_t index, Dims<M> const *all, int32_t count) noexcept override
    {
        return index < count ? all[index] : Dims<M>{-1, {}};
    }
    int32_t initialize() noexcept override { return 11; }
    void terminate() noexcept override { namespace_ = "terminated"; }
    size_t unusedWorkspace(int32_t batch) const noexcept override { return batch + (size_t(1) << 40); }
    size_t serializedSize() const noexcept override { return 4; }
    void serialize(void *buffer) const noexcept override { memcpy(buffer, "echo", 4); }
    void destroy() noexcept override { delete this; }
    Echo *clone() const noexcept override { return new Echo(*this); }
    void setNamespace(char const *text) noexcept override { namespace_ = text; }
    char const *getNamespace() const noexcept override { return namespace_.c_str(); }
    int32_t outputType(int32_t, int32_t const *, int32_t) const noexcept override { return 0; }
    SymbolicShape outputShape(int32_t, SymbolicShape const *, int32_t, SizeBuilder &) noexcept override { return {}; }
    bool supports(int32_t, TensorDesc<M> const *, int32_t, int32_t) noexcept override { return false; }
    size_t workspace(TensorDesc<M> const *, int32_t, TensorDesc<M> const *, int32_t) const noexcept override { return 0; }
    int32_t enqueue(TensorDesc<M> const *, TensorDesc<M> const *, void const *const *, void *const *, void *, void *) noexcept override
    {
        return 0;
    }
};

template <int M> struct EchoCreator final : PluginCreator<M> {
    char const *name() const noexcept override { return "Echo"; }
    char const *version() const noexcept override { return "7"; }
    Fields const *fields() noexcept override
    {
        static Field const both[] = {{"first", nullptr, 6, 0}, {"second", nullptr, 3, 1}};
        static Fields const all{2, both};
        return &all;
    }
    PluginBase<M> *create(char const *, Fields const *) noexcept override { return new Echo<M>; }
    PluginBase<M> *deserialize(char const *, void const *data, size_t size) noexcept override
    {
        return size == 4 && !memcmp(data, "echo", 4) ? new Echo<M> : nullptr;
    }
    void setNamespace(char const *) noexcept override {}
    char const *getNamespace() const noexcept override { return ""; }
};

EXPORT bool registry_add(int version, void *registry, void *creator)
{
    using Call = bool (*)(void *, void *, char const *);
    return (*static_cast<Call **>(registry))[kRegister.of(version)](registry, creator, "");
}
EXPORT void *registry_find(int version, void *registry, char const *name, char const *its_version)
{
    using Call = void *(*)(void *, char const *, char const *, char const *);
    constexpr RegistrySlot find = {2, 10, 2};
    return (*static_cast<Call **>(registry))[find.of(version)](registry, name, its_version, "");
}
EXPORT void *echo_creator(int major)
{
    static EchoCreator<8> v8;
    static EchoCreator<10> v10;
    static EchoCreator<11> v11;
    return major >= 11 ? static_cast<void *>(&v11) : major == 10 ? static_cast<void *>(&v10) : static_cast<void *>(&v8);
}
