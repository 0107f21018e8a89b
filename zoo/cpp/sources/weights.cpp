#include "weights.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <fstream>
#include <stdexcept>

using nvinfer1::DataType;

namespace
{
// Reads the JSON that a safetensors file begins with, which is objects, lists, strings and whole numbers.
class Header
{
public:
    Header(char const* begin, char const* end)
        : mAt(begin)
        , mEnd(end)
    {
    }

    bool take(char wanted)
    {
        while (mAt != mEnd && (*mAt == ' ' || *mAt == '\n' || *mAt == '\t' || *mAt == '\r'))
        {
            ++mAt;
        }
        if (mAt == mEnd || *mAt != wanted)
        {
            return false;
        }
        ++mAt;
        return true;
    }

    void expect(char wanted)
    {
        if (!take(wanted))
        {
            throw std::runtime_error(std::string("no '") + wanted + "' where one belongs");
        }
    }

    std::string string()
    {
        expect('"');
        std::string found;
        while (mAt != mEnd && *mAt != '"')
        {
            if (*mAt == '\\' && ++mAt == mEnd)
            {
                break;
            }
            found += *mAt++;
        }
        expect('"');
        return found;
    }

    size_t number()
    {
        char* after = nullptr;
        size_t const found = std::strtoull(mAt, &after, 10);
        if (after == mAt)
        {
            throw std::runtime_error("no number where one belongs");
        }
        mAt = after;
        return found;
    }

    std::vector<size_t> numbers()
    {
        std::vector<size_t> found;
        expect('[');
        while (!take(']'))
        {
            found.push_back(number());
            take(',');
        }
        return found;
    }

    void skipStrings() // {"name": "text", ...}
    {
        expect('{');
        while (!take('}'))
        {
            string();
            expect(':');
            string();
            take(',');
        }
    }

private:
    char const* mAt;
    char const* mEnd;
};

size_t width(DataType type)
{
    return type == DataType::kFLOAT ? 4 : 2;
}

char const* stored(DataType type)
{
    return type == DataType::kFLOAT ? "F32" : type == DataType::kHALF ? "F16" : "BF16";
}
} // namespace

WeightsFile::WeightsFile(std::string const& path)
    : mPath(path)
{
    std::ifstream file(path, std::ios::binary | std::ios::ate);
    std::streamoff const size = file ? static_cast<std::streamoff>(file.tellg()) : -1;
    mData.resize(static_cast<size_t>(std::max<std::streamoff>(size, 0)) + 1); // a zero ends it, and so the last number
    file.seekg(0);
    if (size < 0 || !file.read(mData.data(), size))
    {
        throw std::runtime_error("cannot read the weights " + path);
    }
    bool const text = path.size() > 4 && path.compare(path.size() - 4, 4, ".wts") == 0;
    try
    {
        text ? readWts() : readSafetensors();
    }
    catch (std::runtime_error const& error)
    {
        throw std::runtime_error(path + " is no " + (text ? ".wts" : "safetensors") + " file: " + error.what());
    }
}

void WeightsFile::readSafetensors()
{
    uint64_t length = 0;
    size_t const size = mData.size() - 1;
    if (size < sizeof(length))
    {
        throw std::runtime_error("it is too short");
    }
    std::memcpy(&length, mData.data(), sizeof(length));
    if (length > size - sizeof(length))
    {
        throw std::runtime_error("its header ends beyond it");
    }
    char const* const tensors = mData.data() + sizeof(length) + length;
    size_t const bytes = size - sizeof(length) - length;
    Header header(mData.data() + sizeof(length), tensors);
    header.expect('{');
    while (!header.take('}'))
    {
        std::string const name = header.string();
        header.expect(':');
        if (name == "__metadata__")
        {
            header.skipStrings();
            header.take(',');
            continue;
        }
        Entry entry;
        header.expect('{');
        while (!header.take('}'))
        {
            std::string const key = header.string();
            header.expect(':');
            if (key == "dtype")
            {
                entry.type = header.string();
            }
            else
            {
                std::vector<size_t> const numbers = header.numbers();
                if (key == "data_offsets")
                {
                    if (numbers.size() != 2 || numbers[0] > numbers[1] || numbers[1] > bytes)
                    {
                        throw std::runtime_error("the tensor '" + name + "' lies beyond its end");
                    }
                    entry.begin = tensors + numbers[0];
                    entry.bytes = numbers[1] - numbers[0];
                }
            }
            header.take(',');
        }
        mEntries[name] = entry;
        header.take(',');
    }
}

// The number of tensors, then for each a line "name count value ...", each value a float32 in hexadecimal.
void WeightsFile::readWts()
{
    char* at = mData.data();
    char const* const end = at + mData.size() - 1;
    size_t const tensors = std::strtoull(at, &at, 10);
    mValues.reserve(tensors);
    for (size_t index = 0; index < tensors; ++index)
    {
        at += std::strspn(at, " \t\r\n");
        size_t const letters = std::strcspn(at, " \t\r\n");
        std::string const name(at, letters);
        size_t const count = std::strtoull(at + letters, &at, 10);
        if (name.empty() || count > static_cast<size_t>(end - at) / 2)
        {
            throw std::runtime_error("it ends before its last tensor");
        }
        mValues.emplace_back(count);
        for (float& value : mValues.back())
        {
            uint32_t const bits = static_cast<uint32_t>(std::strtoul(at, &at, 16));
            std::memcpy(&value, &bits, sizeof(bits));
        }
        Entry entry;
        entry.type = "F32";
        entry.begin = reinterpret_cast<char const*>(mValues.back().data());
        entry.bytes = count * sizeof(float);
        mEntries[name] = entry;
    }
}

nvinfer1::Weights WeightsFile::read(std::string const& name, int64_t count, DataType type)
{
    auto const found = mEntries.find(name);
    if (found == mEntries.end())
    {
        throw std::runtime_error(mPath + " has no tensor '" + name + "', which the network needs");
    }
    Entry& entry = found->second;
    if (entry.type != stored(type) || entry.bytes != static_cast<size_t>(count) * width(type))
    {
        throw std::runtime_error("the tensor '" + name + "' of " + mPath + " is " + std::to_string(entry.bytes)
            + " bytes of " + entry.type + ", and the network needs " + std::to_string(count) + " values of "
            + stored(type));
    }
    entry.read = true;
    return nvinfer1::Weights{type, entry.begin, count};
}

std::vector<std::string> WeightsFile::unread() const
{
    std::vector<std::string> names;
    for (auto const& entry : mEntries)
    {
        if (!entry.second.read)
        {
            names.push_back(entry.first);
        }
    }
    return names;
}

nvinfer1::Weights integers(std::vector<int32_t> values)
{
    static std::deque<std::vector<int32_t>> kept;
    kept.push_back(std::move(values));
    return nvinfer1::Weights{DataType::kINT32, kept.back().data(), static_cast<int64_t>(kept.back().size())};
}

nvinfer1::Weights indices(std::vector<int64_t> const& values)
{
#if NV_TENSORRT_MAJOR >= 10
    static std::deque<std::vector<int64_t>> kept;
    kept.push_back(values);
    return nvinfer1::Weights{kIndex, kept.back().data(), static_cast<int64_t>(values.size())};
#else
    std::vector<int32_t> narrow;
    for (int64_t value : values)
    {
        narrow.push_back(static_cast<int32_t>(value));
    }
    return integers(narrow);
#endif
}

nvinfer1::Weights booleans(std::vector<int32_t> const& values)
{
    static std::deque<std::vector<uint8_t>> kept;
    kept.emplace_back(values.begin(), values.end());
    return nvinfer1::Weights{DataType::kBOOL, kept.back().data(), static_cast<int64_t>(values.size())};
}
