#include "definition.h"

#include <algorithm>

namespace
{
#if NV_TENSORRT_MAJOR < 10
// One number that broadcasts over `like`. TensorRT reads it when it builds, so it is kept until the program ends.
ITensor& number(INetworkDefinition& network, ITensor& like, float const& value)
{
    Dims shape{};
    shape.nbDims = like.getDimensions().nbDims;
    std::fill_n(shape.d, shape.nbDims, 1);
    return *checked(network.addConstant(shape, Weights{DataType::kFLOAT, &value, 1}))->getOutput(0);
}

ITensor& combined(INetworkDefinition& network, ITensor& a, ITensor& b, ElementWiseOperation operation)
{
    return *checked(network.addElementWise(a, b, operation))->getOutput(0);
}

constexpr ElementWiseOperation kTimes = ElementWiseOperation::kPROD;
constexpr ElementWiseOperation kPlus = ElementWiseOperation::kSUM;
#endif
} // namespace

#if NV_TENSORRT_MAJOR >= 10
ILayer* gelu_erf(INetworkDefinition& network, ITensor& x)
{
    return network.addActivation(x, ActivationType::kGELU_ERF);
}

ILayer* gelu_tanh(INetworkDefinition& network, ITensor& x)
{
    return network.addActivation(x, ActivationType::kGELU_TANH);
}
#else
ILayer* gelu_erf(INetworkDefinition& network, ITensor& x)
{
    static float const rsqrt2 = 0.70710678F, one = 1.0F, half = 0.5F;
    ITensor& scaled = combined(network, x, number(network, x, rsqrt2), kTimes);
    ITensor& erf = *checked(network.addUnary(scaled, UnaryOperation::kERF))->getOutput(0);
    ITensor& cdf2 = combined(network, erf, number(network, x, one), kPlus);
    return network.addElementWise(combined(network, x, number(network, x, half), kTimes), cdf2, kTimes);
}

ILayer* gelu_tanh(INetworkDefinition& network, ITensor& x)
{
    static float const linear = 0.79788456F, cubic = 0.79788456F * 0.044715F, one = 1.0F, half = 0.5F;
    ITensor& square = combined(network, x, x, kTimes);
    ITensor& slope = combined(network, combined(network, square, number(network, x, cubic), kTimes),
        number(network, x, linear), kPlus);
    ITensor& inner = combined(network, x, slope, kTimes);
    ITensor& tanh = *checked(network.addActivation(inner, ActivationType::kTANH))->getOutput(0);
    ITensor& gate = combined(network, tanh, number(network, x, one), kPlus);
    return network.addElementWise(combined(network, x, number(network, x, half), kTimes), gate, kTimes);
}
#endif

#if NV_TENSORRT_MAJOR * 100 + NV_TENSORRT_MINOR >= 1003
ISliceLayer* slice(
    INetworkDefinition& network, ITensor& x, Dims const& start, Dims const& size, Dims const& step, Dims const& axes)
{
    ISliceLayer* layer = network.addSlice(x, start, size, step);
    if (layer != nullptr)
    {
        layer->setAxes(axes);
    }
    return layer;
}
#else
// Without named axes: sizes along all of them, those of the others read when the network runs.
ISliceLayer* slice(
    INetworkDefinition& network, ITensor& x, Dims const& start, Dims const& size, Dims const& step, Dims const& axes)
{
    int32_t const rank = x.getDimensions().nbDims;
    Dims starts{}, sizes{}, steps{};
    starts.nbDims = sizes.nbDims = steps.nbDims = rank;
    std::fill_n(steps.d, rank, 1);
    for (int32_t i = 0; i < axes.nbDims; ++i)
    {
        starts.d[axes.d[i]] = start.d[i];
        sizes.d[axes.d[i]] = size.d[i];
        steps.d[axes.d[i]] = step.d[i];
    }
    ISliceLayer* layer = network.addSlice(x, starts, sizes, steps);
    if (layer == nullptr)
    {
        return nullptr;
    }
    std::vector<int64_t> others(static_cast<size_t>(rank), 1), given(sizes.d, sizes.d + rank);
    for (int32_t i = 0; i < axes.nbDims; ++i)
    {
        others[static_cast<size_t>(axes.d[i])] = 0;
    }
    ITensor* shape = checked(network.addShape(x))->getOutput(0);
    ITensor* mask = checked(network.addConstant(dims({rank}), indices(others)))->getOutput(0);
    ITensor* known = checked(network.addConstant(dims({rank}), indices(given)))->getOutput(0);
    ITensor* whole = checked(network.addElementWise(*shape, *mask, ElementWiseOperation::kPROD))->getOutput(0);
    layer->setInput(2, *checked(network.addElementWise(*whole, *known, ElementWiseOperation::kSUM))->getOutput(0));
    return layer;
}
#endif
