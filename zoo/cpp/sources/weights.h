// Weights for a network definition: those of a file, and whole numbers that are written in the program.
#pragma once

#include "NvInfer.h"

#include <cstdint>
#include <map>
#include <string>
#include <vector>

// The type of sizes and indices: TensorRT 8 knows no int64.
#if NV_TENSORRT_MAJOR >= 10
constexpr nvinfer1::DataType kIndex = nvinfer1::DataType::kINT64;
#else
constexpr nvinfer1::DataType kIndex = nvinfer1::DataType::kINT32;
#endif

// The tensors of a .safetensors or a .wts file, in memory: TensorRT points into it until the engine is built.
class WeightsFile
{
public:
    explicit WeightsFile(std::string const& path);

    // Throws std::runtime_error for a tensor that is missing, and for one of another number of values or another type.
    nvinfer1::Weights read(
        std::string const& name, int64_t count, nvinfer1::DataType type = nvinfer1::DataType::kFLOAT);

    // The tensors that were not read.
    std::vector<std::string> unread() const;

private:
    struct Entry
    {
        std::string type; // as safetensors names it
        char const* begin{nullptr};
        size_t bytes{0};
        bool read{false};
    };

    void readSafetensors();
    void readWts();

    std::string mPath;
    std::vector<char> mData;
    std::vector<std::vector<float>> mValues; // of a .wts file
    std::map<std::string, Entry> mEntries;
};

// Constants, which are kept until the program ends.
nvinfer1::Weights indices(std::vector<int64_t> const& values);
nvinfer1::Weights integers(std::vector<int32_t> values);
nvinfer1::Weights booleans(std::vector<int32_t> const& values);
