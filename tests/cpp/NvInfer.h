// The part of TensorRT's builder that exported networks use: for tests where there is none. A network only remembers
// what it is told, and its "engine" is that as text, a line for each layer: kind|name|inputs|outputs|settings.
#pragma once

#include "NvInferRuntime.h"

#include <memory>

namespace nvinfer1
{
struct Weights
{
    DataType type;
    void const* values;
    int64_t count;
};

struct Permutation
{
    int32_t order[8];
};

enum class ActivationType { kRELU, kSIGMOID, kTANH, kLEAKY_RELU, kELU, kSELU, kSOFTSIGN, kSOFTPLUS, kCLIP, kHARD_SIGMOID, kSCALED_TANH, kTHRESHOLDED_RELU, kGELU_ERF, kGELU_TANH };
enum class ElementWiseOperation { kSUM, kPROD, kMAX, kMIN, kSUB, kDIV, kPOW, kFLOOR_DIV, kAND, kOR, kXOR, kEQUAL, kGREATER, kLESS };
enum class UnaryOperation { kEXP, kLOG, kSQRT, kRECIP, kABS, kNEG, kERF, kFLOOR, kCEIL, kROUND, kNOT };
enum class ReduceOperation { kSUM, kPROD, kMAX, kMIN, kAVG };
enum class TopKOperation { kMAX, kMIN };
enum class MatrixOperation { kNONE, kTRANSPOSE, kVECTOR };
enum class PoolingType { kMAX, kAVERAGE, kMAX_AVERAGE_BLEND };
enum class PaddingMode { kEXPLICIT_ROUND_DOWN, kEXPLICIT_ROUND_UP, kSAME_UPPER, kSAME_LOWER };
enum class ScaleMode { kUNIFORM, kCHANNEL, kELEMENTWISE };
enum class InterpolationMode { kNEAREST, kLINEAR, kCUBIC };
enum class ResizeCoordinateTransformation { kALIGN_CORNERS, kASYMMETRIC, kHALF_PIXEL };
enum class ResizeSelector { kFORMULA, kUPPER };
enum class ResizeRoundMode { kHALF_UP, kHALF_DOWN, kFLOOR, kCEIL };
enum class SampleMode { kSTRICT_BOUNDS, kWRAP, kCLAMP, kFILL, kREFLECT };
enum class GatherMode { kDEFAULT, kELEMENT, kND };
enum class ScatterMode { kELEMENT, kND };
enum class FillOperation { kLINSPACE };
enum class BoundingBoxFormat { kCORNER_PAIRS, kCENTER_SIZES };
enum class NetworkDefinitionCreationFlag { kSTRONGLY_TYPED };
enum class BuilderFlag { kFP16, kTF32, kOBEY_PRECISION_CONSTRAINTS };
enum class ProfilingVerbosity { kDETAILED };

class ITensor
{
public:
    std::string name;
    Dims shape;

    void setName(char const* value) { name = value; }
    char const* getName() const { return name.c_str(); }
    Dims getDimensions() const { return shape; }
    void setDimensionName(int32_t, char const*) {}
};

inline std::string told(Dims const& dims)
{
    std::string text;
    for (int32_t i = 0; i < dims.nbDims; ++i)
        text += (i > 0 ? "x" : "") + std::to_string(dims.d[i]);
    return text;
}

// One class for all kinds of layers: what is set is remembered under the setter's name.
class ILayer
{
public:
    std::string kind, name, settings;
    std::vector<ITensor*> inputs;
    std::vector<std::unique_ptr<ITensor>> outputs;

    void setName(char const* value) { name = value; }
    char const* getName() const { return name.c_str(); }
    ITensor* getOutput(int32_t index) { return outputs[static_cast<size_t>(index)].get(); }
    void setInput(int32_t index, ITensor& tensor)
    {
        inputs.resize(std::max(inputs.size(), static_cast<size_t>(index) + 1));
        inputs[static_cast<size_t>(index)] = &tensor;
    }

    void note(std::string const& what, std::string const& value) { settings += " " + what + "=" + value; }
    void setAlpha(double value) { note("alpha", std::to_string(value)); }
    void setBeta(double value) { note("beta", std::to_string(value)); }
    void setStrideNd(Dims value) { note("stride", told(value)); }
    void setPaddingNd(Dims value) { note("padding", told(value)); }
    void setPrePadding(Dims value) { note("pre", told(value)); }
    void setPostPadding(Dims value) { note("post", told(value)); }
    void setDilationNd(Dims value) { note("dilation", told(value)); }
    void setNbGroups(int64_t value) { note("groups", std::to_string(value)); }
    void setPaddingMode(PaddingMode) {}
    void setAverageCountExcludesPadding(bool value) { note("excludes", value ? "1" : "0"); }
    void setAxes(uint32_t value) { note("axes", std::to_string(value)); }
    void setAxes(Dims const& value) { note("axes", told(value)); }
    void setAxis(int32_t value) { note("axis", std::to_string(value)); }
    void setEpsilon(float) {}
    void setFirstTranspose(Permutation) {}
    void setSecondTranspose(Permutation) {}
    void setReshapeDimensions(Dims value) { note("reshape", told(value)); }
    void setZeroIsPlaceholder(bool) {}
    void setGatherAxis(int32_t value) { note("axis", std::to_string(value)); }
    void setNbElementWiseDims(int32_t) {}
    void setMode(SampleMode) {}
    void setResizeMode(InterpolationMode) {}
    void setCoordinateTransformation(ResizeCoordinateTransformation) {}
    void setSelectorForSinglePixel(ResizeSelector) {}
    void setNearestRounding(ResizeRoundMode) {}
    void setScales(float const*, int32_t) {}
    void setOutputDimensions(Dims value) { note("size", told(value)); }
};

using IFillLayer = ILayer;
using IQuantizeLayer = ILayer;
using IDequantizeLayer = ILayer;
using INormalizationLayer = ILayer;
using ISliceLayer = ILayer;

class INetworkDefinition
{
public:
    std::vector<std::unique_ptr<ITensor>> inputs;
    std::vector<std::unique_ptr<ILayer>> layers;
    std::vector<ITensor*> marked;

    ITensor* addInput(char const* name, DataType, Dims const& shape)
    {
        inputs.push_back(std::make_unique<ITensor>(ITensor{name, shape}));
        return inputs.back().get();
    }
    ITensor* getInput(int32_t index) const { return inputs[static_cast<size_t>(index)].get(); }
    int32_t getNbLayers() const { return static_cast<int32_t>(layers.size()); }
    void markOutput(ITensor& tensor) { marked.push_back(&tensor); }

    ILayer* add(char const* kind, std::vector<ITensor*> from, size_t outputs = 1)
    {
        layers.push_back(std::make_unique<ILayer>());
        layers.back()->kind = kind;
        layers.back()->inputs = from;
        for (size_t i = 0; i < outputs; ++i)
            layers.back()->outputs.push_back(std::make_unique<ITensor>());
        return layers.back().get();
    }
    // With the number of weights, their first and their last.
    ILayer* add(char const* kind, std::vector<ITensor*> from, std::vector<Weights> weights)
    {
        ILayer* layer = add(kind, from);
        for (Weights const& w : weights)
        {
            auto const* floats = static_cast<float const*>(w.values);
            std::string ends;
            if (w.type == DataType::kFLOAT && w.count > 0)
                ends = "," + hexed(floats[0]) + "," + hexed(floats[w.count - 1]);
            layer->note("weights", std::to_string(w.count) + ends);
        }
        return layer;
    }
    static std::string hexed(float value)
    {
        uint32_t bits;
        std::memcpy(&bits, &value, sizeof(bits));
        return std::to_string(bits);
    }

    ILayer* addConvolutionNd(ITensor& x, int64_t, Dims const& size, Weights kernel, Weights bias)
    {
        ILayer* layer = add("CONVOLUTION", {&x}, std::vector<Weights>{kernel, bias});
        layer->note("kernel", told(size));
        return layer;
    }
    ILayer* addDeconvolutionNd(ITensor& x, int64_t, Dims const&, Weights kernel, Weights bias) { return add("DECONVOLUTION", {&x}, std::vector<Weights>{kernel, bias}); }
    ILayer* addScaleNd(ITensor& x, ScaleMode, Weights shift, Weights scale, Weights power, int32_t) { return add("SCALE", {&x}, std::vector<Weights>{shift, scale, power}); }
    ILayer* addConstant(Dims const&, Weights weights) { return add("CONSTANT", {}, std::vector<Weights>{weights}); }
    ILayer* addActivation(ITensor& x, ActivationType) { return add("ACTIVATION", {&x}); }
    ILayer* addPoolingNd(ITensor& x, PoolingType, Dims const&) { return add("POOLING", {&x}); }
    ILayer* addElementWise(ITensor& a, ITensor& b, ElementWiseOperation) { return add("ELEMENTWISE", {&a, &b}); }
    ILayer* addUnary(ITensor& x, UnaryOperation) { return add("UNARY", {&x}); }
    ILayer* addReduce(ITensor& x, ReduceOperation, uint32_t, bool) { return add("REDUCE", {&x}); }
    ILayer* addTopK(ITensor& x, TopKOperation, int32_t, uint32_t) { return add("TOPK", {&x}, size_t{2}); }
    ILayer* addMatrixMultiply(ITensor& a, MatrixOperation, ITensor& b, MatrixOperation) { return add("MATRIX_MULTIPLY", {&a, &b}); }
    ILayer* addIdentity(ITensor& x) { return add("IDENTITY", {&x}); }
    ILayer* addCast(ITensor& x, DataType) { return add("CAST", {&x}); }
    ILayer* addSelect(ITensor& c, ITensor& a, ITensor& b) { return add("SELECT", {&c, &a, &b}); }
    ILayer* addShuffle(ITensor& x) { return add("SHUFFLE", {&x}); }
    ILayer* addShape(ITensor& x) { return add("SHAPE", {&x}); }
    ILayer* addConcatenation(ITensor* const* parts, int32_t count) { return add("CONCATENATION", {parts, parts + count}); }
    ILayer* addGatherV2(ITensor& x, ITensor& indices, GatherMode) { return add("GATHER", {&x, &indices}); }
    ILayer* addSlice(ITensor& x, Dims const& start, Dims const& size, Dims const&)
    {
        ILayer* layer = add("SLICE", {&x});
        layer->note("from", told(start));
        layer->note("size", told(size));
        return layer;
    }
    ILayer* addSoftMax(ITensor& x) { return add("SOFTMAX", {&x}); }
    ILayer* addResize(ITensor& x) { return add("RESIZE", {&x}); }
    ILayer* addParametricReLU(ITensor& x, ITensor& slope) { return add("PARAMETRIC_RELU", {&x, &slope}); }
    ILayer* addNormalization(ITensor& x, ITensor& scale, ITensor& bias, uint32_t) { return add("NORMALIZATION", {&x, &scale, &bias}); }
    ILayer* addFill(Dims const&, FillOperation, DataType) { return add("FILL", {}); }
    ILayer* addQuantize(ITensor& x, ITensor& scale, DataType) { return add("QUANTIZE", {&x, &scale}); }
    ILayer* addDequantize(ITensor& x, ITensor& scale, DataType) { return add("DEQUANTIZE", {&x, &scale}); }
};

class IOptimizationProfile
{
public:
    void setDimensions(char const*, OptProfileSelector, Dims const&) {}
};

class IBuilderConfig
{
public:
    std::string said;

    void clearFlag(BuilderFlag) { said += " no-tf32"; }
    void setFlag(BuilderFlag flag) { said += flag == BuilderFlag::kFP16 ? " fp16" : " obey"; }
    void setBuilderOptimizationLevel(int32_t level) { said += " level=" + std::to_string(level); }
    void setProfilingVerbosity(ProfilingVerbosity) {}
    int32_t addOptimizationProfile(IOptimizationProfile*) { said += " profile"; return 0; }
};

class IHostMemory
{
public:
    std::string text;

    void const* data() const { return text.data(); }
    size_t size() const { return text.size(); }
};

class IBuilder
{
public:
    INetworkDefinition* createNetworkV2(uint32_t) { return new INetworkDefinition; }
    IBuilderConfig* createBuilderConfig() { return new IBuilderConfig; }
    IOptimizationProfile* createOptimizationProfile() { return new IOptimizationProfile; }
    IHostMemory* buildSerializedNetwork(INetworkDefinition& network, IBuilderConfig& config)
    {
        std::string text = config.said + "\n";
        for (auto const& layer : network.layers)
        {
            text += layer->kind + "|" + layer->name + "|";
            for (ITensor* input : layer->inputs)
                text += (input == nullptr ? "-" : input->name) + " ";
            text += "|";
            for (auto const& output : layer->outputs)
                text += output->name + " ";
            text += "|" + layer->settings + "\n";
        }
        for (ITensor* output : network.marked)
            text += "output " + output->name + "\n";
        return new IHostMemory{text};
    }
};

inline IBuilder* createInferBuilder(ILogger&) { return new IBuilder; }
} // namespace nvinfer1
