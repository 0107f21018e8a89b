// Builds the engine of the network in network.cpp.
#include "definition.h"
#include "logger.h"

#include <cstdlib>
#include <cstring>
#include <fstream>
#include <memory>

namespace
{
struct Options
{
    std::string weights;
    std::string plan;
    bool fp16{false};
    bool tf32{false};
    int32_t level{-1};
    int32_t batch[3]{1, 1, 1}; // smallest, tuned for, largest
};

char const* const kUsage = "usage: build WEIGHTS PLAN [--fp16] [--tf32] [--level 0..5] [--batch N | MIN:OPT:MAX]\n"
                           "WEIGHTS is a .safetensors or .wts file, PLAN the engine to be written.";

void readBatch(char const* text, int32_t (&batch)[3])
{
    char* at = nullptr;
    batch[0] = batch[1] = batch[2] = static_cast<int32_t>(std::strtol(text, &at, 10));
    for (int32_t i = 1; i < 3 && *at == ':'; ++i)
    {
        batch[i] = static_cast<int32_t>(std::strtol(at + 1, &at, 10));
    }
    if (*at != '\0' || batch[0] < 1 || batch[1] < batch[0] || batch[2] < batch[1])
    {
        throw std::runtime_error(std::string("the batch is '") + text + "'; it must be N or MIN:OPT:MAX");
    }
}

Options parse(int argc, char** argv)
{
    Options options;
    for (int i = 1; i < argc; ++i)
    {
        std::string const word = argv[i];
        bool const more = i + 1 < argc;
        if (word == "--fp16")
        {
            options.fp16 = true;
        }
        else if (word == "--tf32")
        {
            options.tf32 = true;
        }
        else if (word == "--level" && more && argv[i + 1][0] >= '0' && argv[i + 1][0] <= '5' && argv[i + 1][1] == '\0')
        {
            options.level = argv[++i][0] - '0';
        }
        else if (word == "--batch" && more)
        {
            readBatch(argv[++i], options.batch);
        }
        else if (word[0] != '-' && options.plan.empty())
        {
            (options.weights.empty() ? options.weights : options.plan) = word;
        }
        else
        {
            throw std::runtime_error("cannot understand '" + word + "'\n" + kUsage);
        }
    }
    if (options.plan.empty())
    {
        throw std::runtime_error(kUsage);
    }
    return options;
}

// Types are the network's own (strong typing), unless the builder may choose halves. TensorRT 8 always chooses.
uint32_t creationFlags(Options const& options)
{
    if (options.fp16 && kTyped)
    {
        throw std::runtime_error("the network was written with half precision in it; leave --fp16 away");
    }
#if NV_TENSORRT_MAJOR >= 11
    if (options.fp16)
    {
        throw std::runtime_error(
            "from TensorRT 11 on halves are in the network itself: write it with zoo.export --fp16, and build it as it is");
    }
    return 0U;
#elif NV_TENSORRT_MAJOR >= 10
    return options.fp16 ? 0U : 1U << static_cast<uint32_t>(NetworkDefinitionCreationFlag::kSTRONGLY_TYPED);
#else
    return 1U << static_cast<uint32_t>(NetworkDefinitionCreationFlag::kEXPLICIT_BATCH);
#endif
}

void configure(IBuilder& builder, INetworkDefinition const& network, IBuilderConfig& config, Options const& options)
{
    if (!options.tf32)
    {
        config.clearFlag(BuilderFlag::kTF32);
    }
    if (options.level >= 0)
    {
        config.setBuilderOptimizationLevel(options.level);
    }
    config.setProfilingVerbosity(ProfilingVerbosity::kDETAILED);
#if NV_TENSORRT_MAJOR < 10
    config.setPreviewFeature(PreviewFeature::kPROFILE_SHARING_0806, true);
#endif
#if NV_TENSORRT_MAJOR < 11
    if (options.fp16)
    {
        config.setFlag(BuilderFlag::kFP16);
        config.setFlag(BuilderFlag::kOBEY_PRECISION_CONSTRAINTS);
    }
#endif
    ITensor const& input = *network.getInput(0);
    Dims shape = input.getDimensions();
    if (shape.d[0] != -1)
    {
        return;
    }
    IOptimizationProfile* profile = builder.createOptimizationProfile();
    OptProfileSelector const ends[] = {OptProfileSelector::kMIN, OptProfileSelector::kOPT, OptProfileSelector::kMAX};
    for (int32_t i = 0; i < 3; ++i)
    {
        shape.d[0] = options.batch[i];
        profile->setDimensions(input.getName(), ends[i], shape);
    }
    config.addOptimizationProfile(profile);
}

void build(Options const& options)
{
    requireGpu();
    Logger logger;
    WeightsFile weights(options.weights);
    uint32_t const flags = creationFlags(options);
    std::unique_ptr<IBuilder> builder(createInferBuilder(logger));
    if (!builder)
    {
        throw std::runtime_error("TensorRT cannot build here");
    }
    std::unique_ptr<INetworkDefinition> network(builder->createNetworkV2(flags));
    mayChooseHalves() = options.fp16;
    define(*network, weights);
    for (std::string const& name : weights.unread())
    {
        throw std::runtime_error(options.weights + " holds '" + name + "', for which the network has no use");
    }
    std::unique_ptr<IBuilderConfig> config(builder->createBuilderConfig());
    configure(*builder, *network, *config, options);
    std::cout << "building " << network->getNbLayers() << " layers" << std::endl;
    std::unique_ptr<IHostMemory> plan(builder->buildSerializedNetwork(*network, *config));
    if (!plan)
    {
        throw std::runtime_error("TensorRT refused to build the network");
    }
    std::ofstream file(options.plan, std::ios::binary);
    file.write(static_cast<char const*>(plan->data()), static_cast<std::streamsize>(plan->size()));
    file.close();
    if (!file)
    {
        throw std::runtime_error("cannot write " + options.plan);
    }
    std::cout << options.plan << ": " << plan->size() << " bytes" << std::endl;
}
} // namespace

int main(int argc, char** argv)
{
    try
    {
        build(parse(argc, argv));
    }
    catch (std::exception const& error)
    {
        std::cerr << error.what() << std::endl;
        return 2;
    }
    return 0;
}
