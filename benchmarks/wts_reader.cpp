// Reads a .wts file the way tensorrtx's C++ samples do: value by value through std::ifstream.
// Prints one JSON line: seconds, memory over the start of main in bytes, number and sum of the 32-bit values.
// Build: c++ -O2 -o wts_reader wts_reader.cpp

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <map>
#include <string>

struct Tensor {
    uint32_t* values;
    uint32_t count;
};

// A memory figure of /proc/self/status ("VmRSS:", "VmHWM:") in bytes.
long memory(const std::string& key) {
    std::ifstream status("/proc/self/status");
    std::string word;
    long kilobytes = 0;
    while (status >> word) {
        if (word == key) {
            status >> kilobytes;
            break;
        }
    }
    return kilobytes * 1024;
}

std::map<std::string, Tensor> read(const char* path) {
    std::map<std::string, Tensor> tensors;
    std::ifstream input(path);
    int32_t left = 0;
    input >> left;
    while (left-- > 0) {
        std::string name;
        uint32_t count = 0;
        input >> name >> std::dec >> count;
        auto* values = static_cast<uint32_t*>(std::malloc(sizeof(uint32_t) * count));
        for (uint32_t i = 0; i < count; ++i) {
            input >> std::hex >> values[i];
        }
        tensors[name] = {values, count};
    }
    return tensors;
}

int main(int, char** argv) {
    const long before = memory("VmRSS:");
    const auto start = std::chrono::steady_clock::now();
    const auto tensors = read(argv[1]);
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
    const long peak = memory("VmHWM:") - before;

    uint64_t values = 0, sum = 0;
    for (const auto& [name, tensor] : tensors) {
        values += tensor.count;
        for (uint32_t i = 0; i < tensor.count; ++i) {
            sum += tensor.values[i];
        }
    }
    std::printf("{\"seconds\": %.6f, \"memory\": %ld, \"values\": %lu, \"sum\": %lu}\n", seconds.count(), peak,
                static_cast<unsigned long>(values), static_cast<unsigned long>(sum));
}
