// An op as its text describes it, and its kernels once they are loaded.
//
// The text has one statement a line, its words separated by blanks. SIZE is in reverse Polish notation, items joined by
// commas: an integer, `i.d` (dimension d of input i), `oi.d` (of output i, in launches only), or an operation: + - *
// / (rounded down) c (division rounded up) M (maximum) m (minimum).
//   op NAME VERSION           for messages
//   io INPUTS OUTPUTS         how many
//   types LETTERS NAME ...    one combination of element types that it supports, a letter each for inputs then outputs,
//                             and the name of each launch's kernel for it
//   out SIZE ...              the shape of the next output
//   scratch SIZE              bytes of scratch memory
//   run GX GY GZ BX BY BZ     the next launch: its grid and block, each a SIZE
//   arg i0 | o0 | w SIZE | n SIZE | f HEX    its next argument: the address of an input, an output or of scratch memory
//                             SIZE bytes on, an int32, the bits of a float32
#pragma once
#include "process.h"
#include <algorithm>
#include <cerrno>
#include <climits>
#include <cstring>
#include <memory>
#include <mutex>
#include <sstream>
#include <vector>

namespace {

constexpr size_t kMaxTensors = 64, kMaxArguments = 64, kMaxDepth = 32;

// ---- sizes ----------------------------------------------------------------------------------------------------------

struct Item {
    char kind; // '#' a number, 'i' or 'o' a dimension of a tensor, else an operation
    int64_t value = 0; // the number, or which tensor
    int axis = 0;
};
using Formula = std::vector<Item>;

int64_t number(std::string const &text)
{
    char *end = nullptr;
    errno = 0;
    long long value = strtoll(text.c_str(), &end, 10);
    if (text.empty() || *end || errno)
        fail("'%s' is no number", text.c_str());
    return value;
}

int small(std::string const &text, int limit)
{
    int64_t value = number(text);
    if (value < 0 || value >= limit)
        fail("'%s' is not in 0 ... %d", text.c_str(), limit - 1);
    return static_cast<int>(value);
}

Formula parse(std::string const &text)
{
    Formula items;
    std::istringstream in(text);
    for (std::string word; std::getline(in, word, ',');) {
        size_t dot = word.find('.');
        if (word.empty())
            fail("'%s' has an empty item", text.c_str());
        if (dot != std::string::npos) {
            bool out = word[0] == 'o';
            int tensor = small(word.substr(out, dot - out), kMaxTensors), axis = small(word.substr(dot + 1), 8);
            items.push_back({out ? 'o' : 'i', tensor, axis});
        } else if (word.size() == 1 && strchr("+-*/cMm", word[0]))
            items.push_back({word[0]});
        else
            items.push_back({'#', number(word)});
    }
    return items;
}

template <class V, class Leaf, class Apply> V evaluate(Formula const &formula, Leaf leaf, Apply apply)
{
    V stack[kMaxDepth];
    size_t top = 0;
    for (Item const &item : formula) {
        if (item.kind == '#' || item.kind == 'i' || item.kind == 'o') {
            if (top == kMaxDepth)
                fail("a size is computed in too many steps");
            stack[top++] = leaf(item);
        } else {
            if (top < 2)
                fail("a size lacks an operand of '%c'", item.kind);
            V right = stack[--top];
            stack[top - 1] = apply(item.kind, stack[top - 1], right);
        }
    }
    if (top != 1)
        fail("a size leaves %d values", static_cast<int>(top));
    return stack[0];
}

int64_t arithmetic(char operation, int64_t a, int64_t b)
{
    int64_t result = 0;
    bool overflow = false;
    switch (operation) {
    case '+': overflow = __builtin_add_overflow(a, b, &result); break;
    case '-': overflow = __builtin_sub_overflow(a, b, &result); break;
    case '*': overflow = __builtin_mul_overflow(a, b, &result); break;
    case 'M': return std::max(a, b);
    case 'm': return std::min(a, b);
    default: // '/' rounds down, 'c' up
        if (b == 0)
            fail("a size is divided by zero");
        if (b == -1)
            overflow = __builtin_sub_overflow(int64_t(0), a, &result);
        else if (operation == '/')
            result = a / b - (a % b != 0 && (a < 0) != (b < 0));
        else
            result = a / b + (a % b != 0 && (a < 0) == (b < 0));
    }
    if (overflow)
        fail("a size does not fit 64 bits");
    return result;
}

// ---- an op ----------------------------------------------------------------------------------------------------------

struct Argument {
    char kind; // i, o, w, n, f
    int index = 0;
    Formula value;
    uint32_t bits = 0;
};
struct Launch {
    Formula size[6];
    std::vector<Argument> arguments;
};
struct Types {
    std::string letters;
    std::vector<std::string> kernels;
};

char letter_of(int32_t type)
{
    for (ElementType const &known : kElementTypes)
        if (known.number == type)
            return known.letter;
    return '?';
}

int32_t type_of(char letter)
{
    for (ElementType const &known : kElementTypes)
        if (known.letter == letter)
            return known.number;
    fail("'%c' is no element type", letter);
}

// What its text says, and its kernels in every CUDA context that they were used in. Shared by the clones of a plugin.
class Op {
public:
    std::string const spec, image;
    std::string name = "an op without a name";
    int inputs = 0, outputs = 0;
    std::vector<Types> types;
    std::vector<std::vector<Formula>> shapes;
    Formula scratch;
    std::vector<Launch> launches;

    Op(std::string spec_, std::string image_) : spec(std::move(spec_)), image(std::move(image_))
    {
        std::istringstream lines(spec);
        for (std::string line; std::getline(lines, line);)
            read(line);
        check();
    }

    ~Op()
    {
        for (Loaded &loaded : loaded_) {
            void *context = nullptr; // where it is no longer the current one, it may be gone, and its modules with it
            if (Driver::get().current_context(&context) == 0 && context == loaded.context)
                Driver::get().unload(loaded.module);
        }
    }

    static std::shared_ptr<Op> make(std::string spec, std::string image)
    {
        try {
            return std::make_shared<Op>(std::move(spec), std::move(image));
        } catch (std::exception const &error) {
            complain(std::string("custom op: ") + error.what());
            return nullptr;
        }
    }

    // The kernels for combination `chosen` of types in the current context, which loads them when it is new.
    void *const *functions(size_t chosen)
    {
        Driver const &driver = Driver::get();
        void *context = nullptr;
        driver.check(driver.current_context(&context), "cuCtxGetCurrent");
        std::lock_guard<std::mutex> hold(mutex_);
        for (Loaded &loaded : loaded_)
            if (loaded.context == context)
                return &loaded.functions[chosen * launches.size()];
        Loaded loaded{context, nullptr, {}};
        driver.check(driver.load(&loaded.module, image.data()), "loading its kernels");
        for (Types const &combination : types)
            for (std::string const &kernel : combination.kernels) {
                loaded.functions.push_back(nullptr);
                driver.check(driver.function(&loaded.functions.back(), loaded.module, kernel.c_str()), kernel.c_str());
            }
        loaded_.push_back(std::move(loaded));
        return &loaded_.back().functions[chosen * launches.size()];
    }

private:
    struct Loaded {
        void *context;
        void *module;
        std::vector<void *> functions;
    };
    std::vector<Loaded> loaded_;
    std::mutex mutex_;

    void read(std::string const &line)
    {
        std::istringstream in(line);
        std::string word, text;
        if (!(in >> word))
            return;
        if (word == "op") {
            in >> name >> text;
            name += " " + text;
        } else if (word == "io")
            in >> inputs >> outputs;
        else if (word == "types") {
            types.emplace_back();
            in >> types.back().letters;
            while (in >> text)
                types.back().kernels.push_back(text);
        } else if (word == "out") {
            shapes.emplace_back();
            while (in >> text)
                shapes.back().push_back(parse(text));
        } else if (word == "scratch" && in >> text)
            scratch = parse(text);
        else if (word == "run") {
            launches.emplace_back();
            for (Formula &size : launches.back().size)
                text.clear(), in >> text, size = parse(text);
        } else if (word == "arg" && !launches.empty() && in >> text)
            launches.back().arguments.push_back(argument(text, in));
        else
            fail("%s: its text has the line '%.80s', which this shell (%s) does not know", name.c_str(), line.c_str(), "zooop-1");
    }

    static Argument argument(std::string const &text, std::istringstream &in)
    {
        Argument made{text[0], 0, {}, 0};
        std::string value;
        if (text[0] == 'i' || text[0] == 'o') {
            made.index = small(text.substr(1), kMaxTensors);
            return made;
        }
        if (text.size() != 1 || !strchr("wnf", text[0]) || !(in >> value))
            fail("'%s' is no argument", text.c_str());
        if (text[0] == 'f')
            made.bits = static_cast<uint32_t>(strtoul(value.c_str(), nullptr, 16));
        else
            made.value = parse(value);
        return made;
    }

    void check() const
    {
        bool counted = inputs > 0 && outputs > 0 && size_t(inputs) + size_t(outputs) <= kMaxTensors;
        if (!counted || shapes.size() != size_t(outputs) || types.empty() || launches.empty())
            fail("%s: its text is incomplete", name.c_str());
        for (auto const &shape : shapes)
            if (shape.size() > 8)
                fail("%s: an output has more than 8 axes", name.c_str());
        for (Types const &combination : types) {
            if (combination.kernels.size() != launches.size() || combination.letters.size() != size_t(inputs) + outputs)
                fail("%s: a line of types does not name every tensor and kernel", name.c_str());
            for (char letter : combination.letters)
                type_of(letter);
        }
        for (Launch const &launch : launches) {
            if (launch.arguments.size() > kMaxArguments)
                fail("%s: a kernel has more than %d arguments", name.c_str(), static_cast<int>(kMaxArguments));
            for (Argument const &a : launch.arguments)
                if ((a.kind == 'i' && a.index >= inputs) || (a.kind == 'o' && a.index >= outputs))
                    fail("%s: an argument names %c%d, which is not there", name.c_str(), a.kind, a.index);
        }
    }
};

} // namespace
