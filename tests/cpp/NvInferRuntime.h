// The part of TensorRT's runtime that the exported programs use: for tests where there is none. An engine is a text,
// "input NAME AXES..." and "output NAME FILE AXES..."; a run gives what is in the files, or the input for the file "-".
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <map>
#include <sstream>
#include <string>
#include <vector>

#define NV_TENSORRT_MAJOR 10
#define NV_TENSORRT_MINOR 3

namespace nvinfer1
{
enum class DataType : int32_t { kFLOAT, kHALF, kINT8, kINT32, kBOOL, kUINT8, kFP8, kBF16, kINT64 };
enum class TensorIOMode : int32_t { kNONE, kINPUT, kOUTPUT };
enum class OptProfileSelector : int32_t { kMIN, kOPT, kMAX };

struct Dims
{
    int32_t nbDims;
    int64_t d[8];
};

class ILogger
{
public:
    enum class Severity : int32_t { kINTERNAL_ERROR, kERROR, kWARNING, kINFO };
    virtual void log(Severity severity, char const* text) noexcept = 0;
    virtual ~ILogger() = default;
};

struct Port
{
    std::string name, file;
    Dims shape;
    void* memory;
};

class IExecutionContext
{
public:
    std::vector<Port>* ports;

    Port& port(char const* name) { return *std::find_if(ports->begin(), ports->end(), [&](Port& p) { return p.name == name; }); }
    Dims getTensorShape(char const* name) { return port(name).shape; }
    bool setInputShape(char const* name, Dims shape) { port(name).shape = shape; return true; }
    bool setTensorAddress(char const* name, void* memory) { port(name).memory = memory; return true; }
    template <typename S>
    bool enqueueV3(S)
    {
        for (Port& output : *ports)
        {
            size_t bytes = sizeof(float);
            for (int32_t i = 0; i < output.shape.nbDims; ++i)
                bytes *= static_cast<size_t>(output.shape.d[i]);
            if (output.file == "-")
                std::memcpy(output.memory, ports->front().memory, bytes);
            else if (!output.file.empty())
                std::ifstream(output.file, std::ios::binary).read(static_cast<char*>(output.memory), static_cast<std::streamsize>(bytes));
        }
        return true;
    }
};

class ICudaEngine
{
public:
    std::vector<Port> ports;

    int32_t getNbIOTensors() { return static_cast<int32_t>(ports.size()); }
    char const* getIOTensorName(int32_t index) { return ports[static_cast<size_t>(index)].name.c_str(); }
    IExecutionContext* createExecutionContext() { return new IExecutionContext{&ports}; }
    TensorIOMode getTensorIOMode(char const* name) { return ports.front().name == name ? TensorIOMode::kINPUT : TensorIOMode::kOUTPUT; }
    DataType getTensorDataType(char const*) { return DataType::kFLOAT; }
    Dims getTensorShape(char const* name) { return createExecutionContext()->port(name).shape; }
    Dims getProfileShape(char const* name, int32_t, OptProfileSelector) { return getTensorShape(name); }
};

class IRuntime
{
public:
    ICudaEngine* deserializeCudaEngine(void const* data, size_t size)
    {
        auto* engine = new ICudaEngine;
        std::istringstream text(std::string(static_cast<char const*>(data), size));
        std::string line, kind;
        while (std::getline(text, line))
        {
            std::istringstream words(line);
            Port port{};
            words >> kind >> port.name;
            if (kind == "output")
                words >> port.file;
            while (words >> port.shape.d[port.shape.nbDims])
                ++port.shape.nbDims;
            engine->ports.push_back(port);
        }
        return engine;
    }
};

inline IRuntime* createInferRuntime(ILogger&) { return new IRuntime; }
} // namespace nvinfer1

inline int32_t getInferLibVersion() { return 100301; }
