// What tests/fuzz_plugins.py runs under the sanitizers: every text on stdin is made a plugin of each generation, which is
// then asked all that TensorRT asks. Kernels are not run. Prints how many of the texts a plugin could be made of.
#include "plugin_driver.cpp"
#include "shell.cpp"

// What the shell asks TensorRT for before it complains; without one it would look for the libraries each time.
EXPORT Logger *getLogger() { return nullptr; }

// Data as long as it says, where a read or write beyond it is seen.
struct Exact {
    size_t const size;
    std::unique_ptr<char[]> const data;
    explicit Exact(size_t size_) : size(size_), data(new char[size_]) {}
};

template <int M> static void ask(DynamicPlugin<M> *plugin, Op const &op)
{
    int64_t const sizes[] = {1, 7, 0, -1, 80, 8400, 1 << 20, int64_t(1) << 40};
    int outputs = plugin->outputCount(), all_of_them = op.inputs + outputs;
    for (int rank : {4, 2, 8}) {
        std::vector<Tensor> inputs(64);
        std::vector<TensorDesc<M>> in(op.inputs), out(outputs), all(all_of_them);
        for (int i = 0; i < all_of_them; i++) {
            all[i] = {{rank, {}}, type_of(op.types[rank % op.types.size()].letters[i]), 0, 1};
            for (int k = 0; k < rank; k++) // for four axes as a network has them
                all[i].dims.d[k] = static_cast<Extent<M>>(rank == 4 ? 8 + k : sizes[(i + k + rank) % 8]);
            (i < op.inputs ? in[i] : out[i - op.inputs]) = all[i];
        }
        for (size_t i = 0; i < inputs.size(); i++) {
            inputs[i] = {0, rank, {}, nullptr};
            for (int k = 0; k < rank; k++)
                inputs[i].d[k] = sizes[(i + k + rank) % 8];
        }
        std::vector<void const *> given(op.inputs);
        std::vector<void *> made(outputs);
        for (int count : {1, 3, 64})
            for (int index = -1; index <= outputs; index++) {
                int64_t shape[8];
                std::vector<int32_t> types(count, index % 2);
                plugin->outputType(index, types.data(), count);
                Calls<M>::shape(plugin, index, inputs.data(), count, shape);
                plugin->supports(index, all.data(), op.inputs, outputs);
            }
        plugin->initialize();
        plugin->workspace(in.data(), op.inputs, out.data(), outputs);
        plugin->enqueue(in.data(), out.data(), given.data(), made.data(), nullptr, nullptr);
    }
}

// A plugin of a text, or of what was serialised if `whole`; true if there is one.
template <int M> static bool try_out(Exact const &text, bool whole)
{
    auto *maker = static_cast<PluginCreator<M> *>(creator(M));
    Field both[] = {{"spec", text.data.get(), 6, static_cast<int32_t>(text.size)}, {"image", "kernels", 6, 7}};
    Fields fields{2, both};
    PluginBase<M> *made = whole ? maker->deserialize("", text.data.get(), text.size) : maker->create("", &fields);
    if (!made)
        return false;
    Exact kept(made->serializedSize());
    made->serialize(kept.data.get());
    PluginBase<M> *again = maker->deserialize("", kept.data.get(), kept.size), *copy = again->clone();
    uint64_t length;
    memcpy(&length, kept.data.get() + kFormatSize, sizeof length);
    Op op({kept.data.get() + kHead, length}, "");
    ask<M>(static_cast<DynamicPlugin<M> *>(made), op);
    made->destroy(), again->destroy();
    ask<M>(static_cast<DynamicPlugin<M> *>(copy), op);
    copy->destroy();
    return true;
}

int main()
{
    setvbuf(stderr, nullptr, _IOFBF, 1 << 16); // refusals are many
    int accepted = 0;
    for (uint32_t head[2]; fread(head, sizeof head, 1, stdin) == 1;) { // its size, and whether it is a serialised plugin
        Exact text(head[0]);
        if (fread(text.data.get(), 1, text.size, stdin) != text.size)
            return 1;
        bool whole = head[1];
        accepted += try_out<8>(text, whole) & try_out<10>(text, whole) & try_out<11>(text, whole);
    }
    printf("%d\n", accepted);
    return 0;
}
