// Runs an engine on one input: a binary PPM picture, prepared as the model's is, or a file of raw float32.
#include "logger.h"
#include "model.h"
#include "picture.h"
#include "results.h"

#include <cuda_runtime_api.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <stdexcept>

using namespace nvinfer1;

namespace
{
struct Options
{
    std::string engine;
    std::string input;
    std::string save;
    int repeat{0};
    int64_t batch{1};
};

char const* const kUsage = "usage: run ENGINE INPUT [--batch N] [--save DIR] [--repeat N]\n"
                           "INPUT is a binary PPM picture, or raw float32 values of the whole input. --batch is for raw "
                           "input of an engine that takes several.\n"
                           "--save writes each output as DIR/NAME.bin. --repeat times so many runs.";

Options parse(int argc, char** argv)
{
    Options options;
    for (int i = 1; i < argc; ++i)
    {
        std::string const word = argv[i];
        bool const more = i + 1 < argc;
        if (word == "--save" && more)
        {
            options.save = argv[++i];
        }
        else if (word == "--repeat" && more)
        {
            options.repeat = std::atoi(argv[++i]);
        }
        else if (word == "--batch" && more)
        {
            options.batch = std::atoll(argv[++i]);
        }
        else if (word[0] != '-' && options.input.empty())
        {
            (options.engine.empty() ? options.engine : options.input) = word;
        }
        else
        {
            throw std::runtime_error("cannot understand '" + word + "'\n" + kUsage);
        }
    }
    if (options.input.empty() || options.batch < 1 || options.repeat < 0)
    {
        throw std::runtime_error(kUsage);
    }
    return options;
}

void check(cudaError_t status, char const* what)
{
    if (status != cudaSuccess)
    {
        throw std::runtime_error(std::string(what) + ": " + cudaGetErrorString(status));
    }
}

std::vector<char> readFile(std::string const& path)
{
    std::ifstream file(path, std::ios::binary);
    if (!file)
    {
        throw std::runtime_error("cannot read " + path);
    }
    return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

void writeFile(std::filesystem::path const& path, void const* data, size_t bytes)
{
    std::ofstream file(path, std::ios::binary);
    file.write(static_cast<char const*>(data), static_cast<std::streamsize>(bytes));
    file.close();
    if (!file)
    {
        throw std::runtime_error("cannot write " + path.string());
    }
}

// The engine's bytes, if they are those that the program was written for and this TensorRT can load them.
std::vector<char> readEngine(std::string const& path)
{
    int32_t const version = getInferLibVersion();
#if NV_TENSORRT_MAJOR >= 10
    int32_t const major = version / 10000, minor = version / 100 % 100, patch = version % 100;
#else
    int32_t const major = version / 1000, minor = version / 100 % 10, patch = version % 100;
#endif
    std::string const here = std::to_string(major) + "." + std::to_string(minor) + "." + std::to_string(patch);
    if (model::kTensorRT[0] != '\0' && here != model::kTensorRT)
    {
        throw std::runtime_error(path + " is of TensorRT " + model::kTensorRT + " and this is " + here
            + "; build the engine again with this one, and export it again");
    }
    std::vector<char> plan = readFile(path);
    if (model::kBytes != 0 && plan.size() != static_cast<size_t>(model::kBytes))
    {
        throw std::runtime_error(path + " has " + std::to_string(plan.size()) + " bytes, and the engine that the program "
            "was written for " + std::to_string(model::kBytes) + ": it is damaged or another one");
    }
    return plan;
}

size_t width(DataType type)
{
    switch (type)
    {
    case DataType::kFLOAT:
    case DataType::kINT32: return 4;
    case DataType::kHALF: return 2;
    case DataType::kINT8:
    case DataType::kUINT8:
    case DataType::kBOOL: return 1;
    default: break;
    }
#if NV_TENSORRT_MAJOR >= 10
    if (type == DataType::kINT64)
    {
        return 8;
    }
#endif
    throw std::runtime_error("the engine has an input or output of a type that the program does not know");
}

float halfToFloat(uint16_t half)
{
    int const exponent = half >> 10 & 31, fraction = half & 1023;
    float const size = exponent == 0 ? std::ldexp(static_cast<float>(fraction), -24)
        : exponent == 31 ? (fraction == 0 ? HUGE_VALF : NAN)
                         : std::ldexp(static_cast<float>(1024 + fraction), exponent - 25);
    return (half >> 15) != 0 ? -size : size;
}

struct Free
{
    void operator()(void* memory) const
    {
        cudaFree(memory);
    }
};

// An input or output of the engine: its memory here and on the GPU.
struct Tensor
{
    std::string name;
    DataType type{DataType::kFLOAT};
    std::vector<int64_t> shape;
    std::vector<char> host;
    std::unique_ptr<void, Free> device;

    int64_t count() const
    {
        int64_t product = 1;
        for (int64_t size : shape)
        {
            product *= size;
        }
        return product;
    }

    // The values as float32, of the picture at `index`.
    Output output(int64_t index) const
    {
        Output found;
        found.shape.assign(shape.begin() + 1, shape.end());
        int64_t const each = count() / shape[0];
        for (int64_t i = index * each; i < (index + 1) * each; ++i)
        {
            char const* at = host.data() + static_cast<size_t>(i) * width(type);
            found.values.push_back(value(at));
        }
        return found;
    }

private:
    template <typename T>
    static T as(char const* at)
    {
        T found;
        std::memcpy(&found, at, sizeof(found));
        return found;
    }

    float value(char const* at) const
    {
        switch (type)
        {
        case DataType::kFLOAT: return as<float>(at);
        case DataType::kHALF: return halfToFloat(as<uint16_t>(at));
        case DataType::kINT32: return static_cast<float>(as<int32_t>(at));
        case DataType::kINT8: return static_cast<float>(as<int8_t>(at));
        case DataType::kUINT8:
        case DataType::kBOOL: return static_cast<float>(as<uint8_t>(at));
        default: return static_cast<float>(as<int64_t>(at));
        }
    }
};

class Session
{
public:
    Session(std::string const& path, int64_t batch)
    {
        std::vector<char> const plan = readEngine(path);
        mRuntime.reset(createInferRuntime(mLogger));
        mEngine.reset(mRuntime ? mRuntime->deserializeCudaEngine(plan.data(), plan.size()) : nullptr);
        if (!mEngine)
        {
            throw std::runtime_error(path + " cannot be loaded" + (model::kGpu[0] == '\0' ? std::string()
                : std::string("; it was built for ") + model::kGpu));
        }
        mContext.reset(mEngine->createExecutionContext());
        check(cudaStreamCreate(&mStream), "no stream");
        for (TensorIOMode mode : {TensorIOMode::kINPUT, TensorIOMode::kOUTPUT}) // outputs' shapes follow from the inputs'
        {
            for (int32_t i = 0; i < mEngine->getNbIOTensors(); ++i)
            {
                char const* name = mEngine->getIOTensorName(i);
                if (mEngine->getTensorIOMode(name) == mode)
                {
                    add(name, mode == TensorIOMode::kINPUT, batch);
                }
            }
        }
    }

    ~Session()
    {
        cudaStreamSynchronize(mStream);
        mContext.reset();
        cudaStreamDestroy(mStream);
    }

    Session(Session const&) = delete;
    Session& operator=(Session const&) = delete;

    Tensor& input()
    {
        return mTensors.front();
    }

    std::vector<Tensor> const& tensors() const
    {
        return mTensors;
    }

    void run()
    {
        copy(input(), cudaMemcpyHostToDevice);
        enqueue();
        for (Tensor& tensor : mTensors)
        {
            if (&tensor != &input())
            {
                copy(tensor, cudaMemcpyDeviceToHost);
            }
        }
        check(cudaStreamSynchronize(mStream), "the network failed");
    }

    // Milliseconds on the GPU of each of `count` runs, between events.
    std::vector<float> times(int count)
    {
        std::vector<float> found;
        cudaEvent_t start{}, end{};
        check(cudaEventCreate(&start), "no event");
        check(cudaEventCreate(&end), "no event");
        for (int i = -10; i < count; ++i) // the first ten only warm up
        {
            check(cudaEventRecord(start, mStream), "no event");
            enqueue();
            check(cudaEventRecord(end, mStream), "no event");
            check(cudaEventSynchronize(end), "the network failed");
            float milliseconds = 0.0F;
            check(cudaEventElapsedTime(&milliseconds, start, end), "no time");
            if (i >= 0)
            {
                found.push_back(milliseconds);
            }
        }
        cudaEventDestroy(start);
        cudaEventDestroy(end);
        return found;
    }

private:
    void add(char const* name, bool isInput, int64_t batch)
    {
        if (isInput && !mTensors.empty())
        {
            throw std::runtime_error("the engine has more than one input");
        }
        Dims shape = isInput ? mEngine->getTensorShape(name) : mContext->getTensorShape(name);
        if (isInput && shape.d[0] == -1)
        {
            shape.d[0] = static_cast<std::remove_reference_t<decltype(shape.d[0])>>(batch);
        }
        if (isInput)
        {
            fixSides(name, shape);
        }
        if (isInput && !mContext->setInputShape(name, shape))
        {
            throw std::runtime_error("the engine does not take a batch of " + std::to_string(batch));
        }
        Tensor tensor;
        tensor.name = name;
        tensor.type = mEngine->getTensorDataType(name);
        tensor.shape.assign(shape.d, shape.d + shape.nbDims);
        size_t const bytes = static_cast<size_t>(tensor.count()) * width(tensor.type);
        tensor.host.resize(bytes);
        void* memory = nullptr;
        check(cudaMalloc(&memory, std::max<size_t>(bytes, 1)), "no memory on the GPU");
        tensor.device.reset(memory);
        mContext->setTensorAddress(name, memory);
        mTensors.push_back(std::move(tensor));
    }

    // A height or width that the engine leaves open is the one that it was tuned for.
    void fixSides(char const* name, Dims& shape) const
    {
        for (int32_t i = 1; i < shape.nbDims; ++i)
        {
            if (shape.d[i] == -1)
            {
                shape.d[i] = mEngine->getProfileShape(name, 0, OptProfileSelector::kOPT).d[i];
            }
        }
    }

    void enqueue()
    {
        if (!mContext->enqueueV3(mStream))
        {
            throw std::runtime_error("the network could not be run");
        }
    }

    void copy(Tensor& tensor, cudaMemcpyKind kind)
    {
        bool const up = kind == cudaMemcpyHostToDevice;
        void* to = up ? tensor.device.get() : tensor.host.data();
        void const* from = up ? tensor.host.data() : tensor.device.get();
        check(cudaMemcpyAsync(to, from, tensor.host.size(), kind, mStream), "no copy");
    }

    Logger mLogger;
    std::unique_ptr<IRuntime> mRuntime;
    std::unique_ptr<ICudaEngine> mEngine;
    std::unique_ptr<IExecutionContext> mContext;
    cudaStream_t mStream{};
    std::vector<Tensor> mTensors;
};

bool isPicture(std::string const& path)
{
    return path.size() > 4 && path.compare(path.size() - 4, 4, ".ppm") == 0;
}

// Fills the input with a picture; where it lies in it.
Placement feedPicture(Session& session, std::string const& path)
{
    Tensor& input = session.input();
    if (!model::kPictures || input.type != DataType::kFLOAT || input.shape.size() != 4 || input.shape[1] != 3)
    {
        throw std::runtime_error(std::string("the program cannot prepare pictures for this engine of ") + model::kName
            + "; give it raw values of the input");
    }
    if (input.shape[0] != 1)
    {
        throw std::runtime_error(
            "the engine takes exactly " + std::to_string(input.shape[0]) + " pictures; give it raw values of the input");
    }
    int const height = static_cast<int>(input.shape[2]), width = static_cast<int>(input.shape[3]);
    Picture const picture = readPpm(path);
    Placement const placement = place(picture, width, height);
    std::vector<float> const values = prepare(picture, placement, width, height);
    std::memcpy(input.host.data(), values.data(), input.host.size());
    return placement;
}

void feedRaw(Session& session, std::string const& path)
{
    std::vector<char> data = readFile(path);
    Tensor& input = session.input();
    if (data.size() != input.host.size())
    {
        throw std::runtime_error(path + " has " + std::to_string(data.size()) + " bytes, and the input "
            + std::to_string(input.host.size()));
    }
    input.host = std::move(data);
}

void report(Session const& session, Options const& options, Placement const* placement)
{
    std::vector<Tensor> const& tensors = session.tensors();
    for (int64_t picture = 0; picture < tensors.front().shape[0]; ++picture)
    {
        std::map<std::string, Output> outputs;
        for (size_t i = 1; i < tensors.size(); ++i)
        {
            outputs[tensors[i].name] = tensors[i].output(picture);
        }
        for (std::string const& line : describe(outputs, placement))
        {
            std::cout << line << std::endl;
        }
    }
    if (options.save.empty())
    {
        return;
    }
    std::filesystem::create_directories(options.save);
    for (size_t i = 1; i < tensors.size(); ++i)
    {
        writeFile(std::filesystem::path(options.save) / (tensors[i].name + ".bin"), tensors[i].host.data(),
            tensors[i].host.size());
    }
}

void run(Options const& options)
{
    requireGpu();
    Session session(options.engine, isPicture(options.input) ? 1 : options.batch);
    Placement placement;
    bool const picture = isPicture(options.input);
    if (picture)
    {
        placement = feedPicture(session, options.input);
    }
    else
    {
        feedRaw(session, options.input);
    }
    session.run();
    report(session, options, picture ? &placement : nullptr);
    if (options.repeat > 0)
    {
        std::vector<float> times = session.times(options.repeat);
        std::sort(times.begin(), times.end());
        std::cout << "time: " << times[times.size() / 2] << " ms (median of " << times.size() << ", fastest "
                  << times.front() << ", slowest " << times.back() << ")" << std::endl;
    }
}
} // namespace

int main(int argc, char** argv)
{
    try
    {
        run(parse(argc, argv));
    }
    catch (std::exception const& error)
    {
        std::cerr << error.what() << std::endl;
        return 2;
    }
    return 0;
}
