// The part of TensorRT's binary interface that a plugin meets, written down from how the libraries behave: the order of
// virtual functions, the sizes of structures and the values of enumerations. All names are ours. M is the generation
// that a library belongs to: 8 (8.5 to 9.3), 10 (10.x) or 11 (11.x). tests/test_plugin_shell.py holds it to real libraries
// of all three, the GPU tests hold what is called only in the course of building and running an engine.
#pragma once
#include <cstddef>
#include <cstdint>
#include <type_traits>

// ---- plain data -----------------------------------------------------------------------------------------------------

template <int M> using Extent = std::conditional_t<(M >= 10), int64_t, int32_t>;

template <int M> struct Dims {
    int32_t rank;
    Extent<M> d[8];
};

template <int M> struct TensorDesc {
    Dims<M> dims;
    int32_t type;
    int32_t format; // 0: plain rows
    float scale;
};

static_assert(sizeof(Dims<8>) == 36 && sizeof(TensorDesc<8>) == 48, "generation 8 counts in 32 bits");
static_assert(sizeof(Dims<10>) == 72 && sizeof(TensorDesc<10>) == 88, "generation 10 counts in 64 bits");

struct Field {
    char const *name;
    void const *data;
    int32_t type; // 6: characters
    int32_t length;
};

struct Fields {
    int32_t count;
    Field const *all;
};

// An element type has a number in TensorRT and a letter in an op's text.
struct ElementType {
    int32_t number;
    char letter;
};
constexpr ElementType kElementTypes[] = {{0, 'f'}, {1, 'h'}, {2, 'c'}, {3, 'i'}, {5, 'u'}, {7, 'b'}};

// ---- what TensorRT passes in ----------------------------------------------------------------------------------------

struct Logger {
    virtual void log(int32_t severity, char const *text) noexcept = 0; // severity 1: an error
};

struct Size; // a symbolic dimension
struct SymbolicShape {
    int32_t rank;
    Size const *d[8];
};

// Makes symbolic dimensions. The object holds its own table of functions, then a pointer to what does the work, whose
// table begins with two destructors.
class SizeBuilder {
    struct Worker {
        void **table;
    };
    void *table_;
    Worker *worker_;

public:
    template <int M> Size const *constant(int64_t value)
    {
        using Call = Size const *(*)(Worker *, Extent<M>);
        return reinterpret_cast<Call>(worker_->table[2])(worker_, static_cast<Extent<M>>(value));
    }
    Size const *operation(int32_t kind, Size const &a, Size const &b)
    {
        using Call = Size const *(*)(Worker *, int32_t, Size const &, Size const &);
        return reinterpret_cast<Call>(worker_->table[3])(worker_, kind, a, b);
    }
};
constexpr char kSizeOperations[] = "+*Mm-=</c"; // by TensorRT's number; `=` and `<` have no use here

// ---- what a plugin is -----------------------------------------------------------------------------------------------

// Functions that only older kinds of plugin are asked for keep their places, and answer nothing.
template <int M> struct PluginBase {
    virtual int32_t interfaceVersion() const noexcept = 0;
    virtual char const *type() const noexcept = 0;
    virtual char const *version() const noexcept = 0;
    virtual int32_t outputCount() const noexcept = 0;
    virtual Dims<M> unusedOutputDims(int32_t, Dims<M> const *, int32_t) noexcept { return {-1, {}}; }
    virtual bool unusedSupportsFormat(int32_t, int32_t) const noexcept { return false; }
    virtual void unusedConfigure(Dims<M> const *, int32_t, Dims<M> const *, int32_t, int32_t, int32_t, int32_t) noexcept {}
    virtual int32_t initialize() noexcept = 0;
    virtual void terminate() noexcept = 0;
    virtual size_t unusedWorkspace(int32_t) const noexcept { return 0; }
    virtual int32_t unusedEnqueue(int32_t, void const *const *, void *const *, void *, void *) noexcept { return 1; }
    virtual size_t serializedSize() const noexcept = 0;
    virtual void serialize(void *) const noexcept = 0;
    virtual void destroy() noexcept = 0;
    virtual PluginBase *clone() const noexcept = 0;
    virtual void setNamespace(char const *) noexcept = 0;
    virtual char const *getNamespace() const noexcept = 0;
    virtual ~PluginBase() = default; // two places
    virtual int32_t outputType(int32_t index, int32_t const *inputTypes, int32_t inputs) const noexcept = 0;
};

template <int M, bool Before11> struct PluginBroadcast : PluginBase<M> {};
template <int M> struct PluginBroadcast<M, true> : PluginBase<M> { // gone in 11, where all that follows moves up by two
    virtual bool unusedIsBroadcast(int32_t, bool const *, int32_t) const noexcept { return false; }
    virtual bool unusedCanBroadcast(int32_t) const noexcept { return false; }
};

template <int M> struct DynamicPlugin : PluginBroadcast<M, (M < 11)> {
    virtual void unusedConfigureTyped(Dims<M> const *, int32_t, Dims<M> const *, int32_t, int32_t const *, int32_t const *,
                                      bool const *, bool const *, int32_t, int32_t) noexcept {}
    virtual void attach(void *, void *, void *) noexcept {}
    virtual void detach() noexcept {}
    virtual SymbolicShape outputShape(int32_t index, SymbolicShape const *inputs, int32_t count, SizeBuilder &) noexcept = 0;
    virtual bool supports(int32_t position, TensorDesc<M> const *all, int32_t inputs, int32_t outputs) noexcept = 0;
    virtual void configure(void const *, int32_t, void const *, int32_t) noexcept {}
    virtual size_t workspace(TensorDesc<M> const *in, int32_t inputs, TensorDesc<M> const *out, int32_t outputs) const noexcept = 0;
    virtual int32_t enqueue(TensorDesc<M> const *in, TensorDesc<M> const *out, void const *const *inputs,
                            void *const *outputs, void *workspace, void *stream) noexcept = 0;
};

// ---- what makes plugins ---------------------------------------------------------------------------------------------

struct InterfaceInfo {
    char const *kind;
    int32_t major, minor;
};

template <int M> struct CreatorHead { // from 10 on
    virtual int32_t apiLanguage() const noexcept { return 0; } // C++
    virtual InterfaceInfo interfaceInfo() const noexcept { return {"PLUGIN CREATOR_V1", 1, 0}; }
    virtual ~CreatorHead() = default; // two places
};
template <> struct CreatorHead<8> {
    virtual int32_t interfaceVersion() const noexcept { return 8600; }
};

template <int M> struct PluginCreator : CreatorHead<M> {
    virtual char const *name() const noexcept = 0;
    virtual char const *version() const noexcept = 0;
    virtual Fields const *fields() noexcept = 0;
    virtual PluginBase<M> *create(char const *name, Fields const *) noexcept = 0;
    virtual PluginBase<M> *deserialize(char const *name, void const *data, size_t size) noexcept = 0;
    virtual void setNamespace(char const *) noexcept = 0;
    virtual char const *getNamespace() const noexcept = 0;
    virtual ~PluginCreator() = default;
};

// ---- the registry ---------------------------------------------------------------------------------------------------

// bool f(registry, creator, namespace), by its place in the registry's table: before 11, from 11 on, where the first
// functions are gone, and in 8.6.0, which alone has the others in an order of its own.
struct RegistrySlot {
    int before11, from11, in8600;

    int of(int version) const { return version >= 110000 ? from11 : version == 8600 ? in8600 : before11; }
};
constexpr RegistrySlot kRegister = {0, 8, 0}, kDeregister = {7, 11, 11};
