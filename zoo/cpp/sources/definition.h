// What network.cpp is written with: TensorRT's API, and few short words around it that hide how versions differ.
#pragma once

#include "weights.h"

#include <cstdint>
#include <initializer_list>
#include <limits>
#include <stdexcept>
#include <type_traits>
#include <string>
#include <vector>

using namespace nvinfer1;

constexpr int kTensorRT = 100 * NV_TENSORRT_MAJOR + NV_TENSORRT_MINOR;

// Whether the network has halves of its own, which the builder then has no say in.
extern const bool kTyped;

void define(INetworkDefinition& network, WeightsFile& weights);

inline Dims dims(std::initializer_list<int64_t> sizes)
{
    Dims result{};
    result.nbDims = static_cast<int32_t>(sizes.size());
    int32_t axis = 0;
    for (int64_t size : sizes)
    {
        result.d[axis++] = static_cast<std::remove_reference_t<decltype(result.d[0])>>(size);
    }
    return result;
}

inline Permutation order(std::initializer_list<int32_t> axes)
{
    Permutation result{};
    int32_t place = 0;
    for (int32_t axis : axes)
    {
        result.order[place++] = axis;
    }
    return result;
}

inline Weights none(DataType type = DataType::kFLOAT)
{
    return Weights{type, nullptr, 0};
}

// Of what TensorRT refused, its own words were printed.
template <typename T>
T* checked(T* thing)
{
    if (thing == nullptr)
    {
        throw std::runtime_error("TensorRT refused the network's input");
    }
    return thing;
}

template <typename L>
L* made(L* layer, char const* name)
{
    if (layer == nullptr)
    {
        throw std::runtime_error(std::string("TensorRT refused the layer ") + name);
    }
    layer->setName(name);
    return layer;
}

// An output of a layer. The first has the layer's name unless it has its own.
inline ITensor* output(ILayer* layer, int32_t index = 0, char const* name = nullptr)
{
    ITensor* tensor = layer->getOutput(index);
    tensor->setName(name == nullptr ? layer->getName() : name);
    return tensor;
}

// Whether the builder may choose half precision, which build.cpp says.
inline bool& mayChooseHalves()
{
    static bool may = false;
    return may;
}

// Where the builder may choose halves: this layer is computed in fp32. (TensorRT 10 has types of its own for that.)
inline void keepFp32(ILayer& layer)
{
#if NV_TENSORRT_MAJOR < 10
    if (mayChooseHalves())
    {
        layer.setPrecision(DataType::kFLOAT);
        layer.setOutputType(0, DataType::kFLOAT);
    }
#else
    static_cast<void>(layer);
#endif
}

inline IFillLayer* fill(INetworkDefinition& network, Dims const& sizes, FillOperation operation, DataType type)
{
#if NV_TENSORRT_MAJOR >= 10
    return network.addFill(sizes, operation, type);
#else
    static_cast<void>(type); // follows from the tensors that are set
    return network.addFill(sizes, operation);
#endif
}

inline IQuantizeLayer* quantize(INetworkDefinition& network, ITensor& x, ITensor& scale, DataType type)
{
#if NV_TENSORRT_MAJOR >= 10
    return network.addQuantize(x, scale, type);
#else
    static_cast<void>(type); // int8 is the only one
    return network.addQuantize(x, scale);
#endif
}

inline IDequantizeLayer* dequantize(INetworkDefinition& network, ITensor& x, ITensor& scale, DataType type)
{
#if NV_TENSORRT_MAJOR >= 10
    return network.addDequantize(x, scale, type);
#else
    static_cast<void>(type);
    return network.addDequantize(x, scale);
#endif
}

// The second version differs for groups only.
inline INormalizationLayer* normalization(
    INetworkDefinition& network, ITensor& x, ITensor& scale, ITensor& bias, uint32_t axes)
{
#if NV_TENSORRT_MAJOR * 100 + NV_TENSORRT_MINOR >= 1015
    return network.addNormalizationV2(x, scale, bias, axes);
#else
    return network.addNormalization(x, scale, bias, axes);
#endif
}

// A slice along some axes; the others stay whole, also those whose size is open.
ISliceLayer* slice(
    INetworkDefinition& network, ITensor& x, Dims const& start, Dims const& size, Dims const& step, Dims const& axes);

// GELU with the exact erf and with tanh, as PyTorch has them.
ILayer* gelu_erf(INetworkDefinition& network, ITensor& x);
ILayer* gelu_tanh(INetworkDefinition& network, ITensor& x);
