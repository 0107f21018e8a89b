// One TensorRT plugin for every custom op: what it computes is data, a text and a CUDA binary, kept in the engine.
//
// Needs no header of TensorRT or CUDA: abi.h states the plugin interface, and the library of TensorRT that is loaded
// decides which generation of it is used. CUDA's driver is opened at the first launch.
#include "op.h"

namespace {

char const kName[] = "ZooOp", kVersion[] = "1";
char const kFormat[] = "zooop-1\n"; // what a serialised op begins with: then the length of its text, the text, the binary
constexpr size_t kFormatSize = sizeof kFormat - 1, kHead = kFormatSize + sizeof(uint64_t);

// ---- the plugin, for one generation of TensorRT ---------------------------------------------------------------------

template <int M> class Plugin final : public DynamicPlugin<M> {
public:
    explicit Plugin(std::shared_ptr<Op> op) : op_(std::move(op)) {}

    // The highest byte tells TensorRT that this is a dynamic plugin, the others which version it was written for.
    int32_t interfaceVersion() const noexcept override { return 3 << 24 | (tensorrt_version() & 0xFFFFFF); }
    char const *type() const noexcept override { return kName; }
    char const *version() const noexcept override { return kVersion; }
    int32_t outputCount() const noexcept override { return op_->outputs; }
    int32_t initialize() noexcept override
    {
        return guarded([&] { op_->functions(0); }); // now, so that no module is loaded while a CUDA graph is captured
    }
    void terminate() noexcept override {}
    void destroy() noexcept override { delete this; }
    Plugin *clone() const noexcept override
    {
        Plugin *copy = new Plugin(op_);
        copy->namespace_ = namespace_;
        return copy;
    }
    void setNamespace(char const *text) noexcept override { namespace_ = text ? text : ""; }
    char const *getNamespace() const noexcept override { return namespace_.c_str(); }

    size_t serializedSize() const noexcept override { return kHead + op_->spec.size() + op_->image.size(); }
    void serialize(void *buffer) const noexcept override
    {
        char *at = static_cast<char *>(buffer);
        uint64_t length = op_->spec.size();
        memcpy(at, kFormat, kFormatSize);
        memcpy(at + kFormatSize, &length, sizeof length);
        memcpy(at + kHead, op_->spec.data(), op_->spec.size());
        memcpy(at + kHead + op_->spec.size(), op_->image.data(), op_->image.size());
    }

    int32_t outputType(int32_t index, int32_t const *given, int32_t count) const noexcept override
    {
        Types const *found = &op_->types[0]; // when none fits, `supports` makes TensorRT convert
        for (Types const &combination : op_->types) {
            bool same = count == op_->inputs;
            for (int i = 0; same && i < count; i++)
                same = combination.letters[i] == letter_of(given[i]);
            if (same) {
                found = &combination;
                break;
            }
        }
        return index < 0 || index >= op_->outputs ? 0 : type_of(found->letters[op_->inputs + index]);
    }

    SymbolicShape outputShape(int32_t index, SymbolicShape const *inputs, int32_t count, SizeBuilder &builder) noexcept override
    {
        SymbolicShape result{};
        auto leaf = [&](Item const &item) -> Size const * {
            if (item.kind == '#')
                return builder.template constant<M>(item.value);
            if (item.kind != 'i' || item.value >= count || item.axis >= inputs[item.value].rank)
                fail("an output's shape asks for a dimension that no input has");
            return inputs[item.value].d[item.axis];
        };
        auto apply = [&](char operation, Size const *a, Size const *b) {
            return builder.operation(static_cast<int32_t>(strchr(kSizeOperations, operation) - kSizeOperations), *a, *b);
        };
        guarded([&] {
            if (index < 0 || index >= op_->outputs)
                fail("it has no output %d", index);
            for (Formula const &formula : op_->shapes[index])
                result.d[result.rank++] = evaluate<Size const *>(formula, leaf, apply);
        });
        return result;
    }

    bool supports(int32_t position, TensorDesc<M> const *all, int32_t inputs, int32_t outputs) noexcept override
    {
        bool fits = inputs == op_->inputs && outputs == op_->outputs && position >= 0 && position < inputs + outputs;
        return fits && all[position].format == 0 && combination(all, position + 1, nullptr, 0) >= 0;
    }

    size_t workspace(TensorDesc<M> const *in, int32_t, TensorDesc<M> const *out, int32_t) const noexcept override
    {
        int64_t bytes = 0;
        guarded([&] { bytes = op_->scratch.empty() ? 0 : value(op_->scratch, in, out); });
        return static_cast<size_t>(std::max<int64_t>(bytes, 0));
    }

    int32_t enqueue(TensorDesc<M> const *in, TensorDesc<M> const *out, void const *const *inputs, void *const *outputs,
                    void *workspace, void *stream) noexcept override
    {
        return guarded([&] {
            int chosen = combination(in, op_->inputs, out, op_->outputs);
            if (chosen < 0)
                fail("it has no kernel for these element types");
            void *const *functions = op_->functions(chosen);
            Types const &types = op_->types[chosen];
            for (size_t index = 0; index < op_->launches.size(); index++)
                launch(op_->launches[index], functions[index], types.kernels[index], in, out, inputs, outputs, workspace, stream);
        });
    }

private:
    std::shared_ptr<Op> op_;
    std::string namespace_;

    template <class F> int32_t guarded(F work) const noexcept
    {
        try {
            work();
            return 0;
        } catch (std::exception const &error) {
            complain("custom op " + op_->name + ": " + error.what());
            return 1;
        }
    }

    // Which combination of types the first `n` tensors of `in` and `m` of `out` have; -1: none.
    int combination(TensorDesc<M> const *in, int n, TensorDesc<M> const *out, int m) const
    {
        for (size_t t = 0; t < op_->types.size(); t++) {
            std::string const &letters = op_->types[t].letters;
            bool same = true;
            for (int i = 0; i < n; i++)
                same = same && letters[i] == letter_of(in[i].type);
            for (int i = 0; i < m; i++)
                same = same && letters[n + i] == letter_of(out[i].type);
            if (same)
                return static_cast<int>(t);
        }
        return -1;
    }

    int64_t value(Formula const &formula, TensorDesc<M> const *in, TensorDesc<M> const *out) const
    {
        auto leaf = [&](Item const &item) -> int64_t {
            if (item.kind == '#')
                return item.value;
            if (item.value >= (item.kind == 'i' ? op_->inputs : op_->outputs))
                fail("a size asks for a tensor that is not there");
            Dims<M> const &dims = (item.kind == 'i' ? in : out)[item.value].dims;
            if (item.axis >= dims.rank)
                fail("a size asks for axis %d of a tensor of %d axes", item.axis, dims.rank);
            return dims.d[item.axis];
        };
        return evaluate<int64_t>(formula, leaf, arithmetic);
    }

    void launch(Launch const &launch, void *function, std::string const &kernel, TensorDesc<M> const *in, TensorDesc<M> const *out,
                void const *const *inputs, void *const *outputs, void *workspace, void *stream) const
    {
        uint64_t values[kMaxArguments];
        void *pointers[kMaxArguments];
        for (size_t i = 0; i < launch.arguments.size(); i++) {
            Argument const &a = launch.arguments[i];
            pointers[i] = &values[i];
            if (a.kind == 'i')
                values[i] = reinterpret_cast<uint64_t>(inputs[a.index]);
            else if (a.kind == 'o')
                values[i] = reinterpret_cast<uint64_t>(outputs[a.index]);
            else if (a.kind == 'f')
                values[i] = a.bits;
            else if (a.kind == 'w')
                values[i] = reinterpret_cast<uint64_t>(workspace) + static_cast<uint64_t>(value(a.value, in, out));
            else
                values[i] = static_cast<uint64_t>(within_int32(value(a.value, in, out)));
        }
        unsigned s[6];
        for (int i = 0; i < 6; i++) {
            s[i] = static_cast<unsigned>(within_int32(value(launch.size[i], in, out)));
            if (static_cast<int>(s[i]) < 0)
                fail("a grid or block has a negative side");
        }
        if (!s[0] || !s[1] || !s[2]) // an empty tensor
            return;
        Driver const &driver = Driver::get();
        driver.check(driver.launch(function, s[0], s[1], s[2], s[3], s[4], s[5], 0, stream, pointers, nullptr), kernel.c_str());
    }

    static int64_t within_int32(int64_t value)
    {
        if (value < INT32_MIN || value > INT32_MAX)
            fail("a size of %lld does not fit 32 bits", static_cast<long long>(value));
        return value;
    }
};

template <int M> class Creator final : public PluginCreator<M> {
public:
    char const *name() const noexcept override { return kName; }
    char const *version() const noexcept override { return kVersion; }
    Fields const *fields() noexcept override
    {
        static Field const both[] = {{"spec", nullptr, 6, 0}, {"image", nullptr, 6, 0}};
        static Fields const all{2, both};
        return &all;
    }
    PluginBase<M> *create(char const *, Fields const *given) noexcept override
    {
        std::string spec, image;
        for (int i = 0; given && i < given->count; i++) {
            Field const &field = given->all[i];
            std::string text(static_cast<char const *>(field.data), field.data && field.length > 0 ? field.length : 0);
            if (!strcmp(field.name, "spec"))
                spec = text;
            else if (!strcmp(field.name, "image"))
                image = text;
        }
        return make(spec, image);
    }
    PluginBase<M> *deserialize(char const *, void const *data, size_t size) noexcept override
    {
        char const *at = static_cast<char const *>(data);
        if (size < kFormatSize || memcmp(at, kFormat, kFormatSize)) {
            bool ours = size >= kFormatSize && !memcmp(at, kFormat, kFormatSize - 2); // but for its number
            complain("custom op: the engine holds it as '" + (ours ? std::string(at, kFormatSize - 1) : "something else") +
                     "', this shell reads zooop-1; rebuild the engine");
            return nullptr;
        }
        uint64_t length = 0;
        if (size >= kHead)
            memcpy(&length, at + kFormatSize, sizeof length);
        if (size < kHead || length > size - kHead) {
            complain("custom op: the engine is damaged, what it holds of an op ends too early; rebuild the engine");
            return nullptr;
        }
        return make({at + kHead, length}, {at + kHead + length, size - kHead - length});
    }
    void setNamespace(char const *text) noexcept override { namespace_ = text ? text : ""; }
    char const *getNamespace() const noexcept override { return namespace_.c_str(); }

private:
    std::string namespace_;

    static Plugin<M> *make(std::string spec, std::string image)
    {
        auto op = Op::make(std::move(spec), std::move(image));
        return op ? new Plugin<M>(op) : nullptr;
    }
};

void *creator(int major) // never freed: TensorRT's registry outlives this library's other objects
{
    static auto *v8 = new Creator<8>;
    static auto *v10 = new Creator<10>;
    static auto *v11 = new Creator<11>;
    return major >= 11 ? static_cast<void *>(v11) : major == 10 ? static_cast<void *>(v10) : static_cast<void *>(v8);
}

bool call_registry(RegistrySlot slot)
{
    using Call = bool (*)(void *, void *, char const *);
    auto get = reinterpret_cast<void *(*)()>(tensorrt_symbol("getPluginRegistry"));
    void *registry = get ? get() : nullptr;
    if (!registry)
        return false;
    Call call = (*static_cast<Call **>(registry))[slot.of(tensorrt_version())];
    return call(registry, creator(tensorrt_major()), "");
}

bool registered = false;

} // namespace

#define EXPORT extern "C" __attribute__((visibility("default")))

// True once this library's plugin is registered. Called when the library is loaded; to be called again if TensorRT was
// loaded later.
EXPORT bool zoo_register() { return registered = registered || call_registry(kRegister); }

// What engines must have been serialised with.
EXPORT char const *zoo_format() { return kFormat; }

// The creator for a generation of TensorRT, for tests.
EXPORT void *zoo_creator(int major) { return creator(major); }

// TensorRT's own way to load a plugin library (`trtexec --dynamicPlugins`, a library kept inside an engine) registers
// what is listed here, and fails on a name that is registered already.
EXPORT void *const *getPluginCreators(int32_t &count)
{
    static void *list[1];
    if (registered)
        registered = !call_registry(kDeregister);
    list[0] = creator(tensorrt_major());
    count = 1;
    return list;
}
EXPORT void *const *getCreators(int32_t &count) { return getPluginCreators(count); }
EXPORT void setLoggerFinder(void *) {}

namespace {
[[maybe_unused]] bool const at_load = zoo_register();
}
