// What both programs begin with: whether there is a GPU, and TensorRT's warnings and errors on the standard error.
#pragma once

#include "NvInferRuntime.h"

#include <cuda_runtime_api.h>

#include <iostream>
#include <stdexcept>
#include <string>

// Throws std::runtime_error where there is no GPU to work with; TensorRT itself would crash.
inline void requireGpu()
{
    int count = 0;
    cudaError_t const status = cudaGetDeviceCount(&count);
    if (status != cudaSuccess || count == 0)
    {
        throw std::runtime_error(std::string("no NVIDIA GPU can be used here: ") + cudaGetErrorString(status));
    }
}

class Logger : public nvinfer1::ILogger
{
public:
    void log(Severity severity, char const* text) noexcept override
    {
        if (severity <= Severity::kWARNING)
        {
            std::cerr << (severity == Severity::kWARNING ? "warning: " : "error: ") << text << std::endl;
        }
    }
};
