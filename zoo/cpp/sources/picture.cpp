#include "picture.h"

#include "model.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <fstream>
#include <stdexcept>

namespace
{
bool is(char const* value, char const* wanted)
{
    return std::strcmp(value, wanted) == 0;
}

bool ofOpenCv()
{
    return is(model::kFilter, "cv2:bilinear");
}

// One axis of a resampling: output i is the weighted sum of pixels from starts[i] on.
struct Axis
{
    std::vector<int> starts;
    std::vector<std::vector<int>> weights;
};

double triangle(double x)
{
    return std::max(1.0 - std::abs(x), 0.0);
}

// Keys' cubic with a = -1/2, in Pillow's order of operations.
double cubic(double x)
{
    double const a = -0.5;
    x = std::abs(x);
    return x < 1.0 ? ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0 : x < 2.0 ? (((x - 5.0) * x + 8.0) * x - 4.0) * a : 0.0;
}

// Pillow's filter, which widens where it shrinks; weights in 1/2^22. Of `resized` pixels those from `from` to `to`.
Axis pillowAxis(int length, int resized, int from, int to)
{
    bool const linear = is(model::kFilter, "pillow:bilinear");
    double const scale = static_cast<double>(length) / resized;
    double const stretch = std::max(scale, 1.0);
    double const support = (linear ? 1.0 : 2.0) * stretch;
    Axis axis;
    for (int i = from; i < to; ++i)
    {
        if (length == resized)
        {
            axis.starts.push_back(i);
            axis.weights.push_back({1 << 22});
            continue;
        }
        double const center = (i + 0.5) * scale;
        int const low = std::max(static_cast<int>(center - support + 0.5), 0);
        int const high = std::min(static_cast<int>(center + support + 0.5), length);
        std::vector<double> shares;
        double sum = 0.0;
        for (int pixel = low; pixel < high; ++pixel)
        {
            double const distance = (pixel - center + 0.5) * (1.0 / stretch);
            shares.push_back(linear ? triangle(distance) : cubic(distance));
            sum += shares.back();
        }
        std::vector<int> weights;
        for (double share : shares)
        {
            share /= sum;
            weights.push_back(static_cast<int>(share * (1 << 22) + (share < 0 ? -0.5 : 0.5)));
        }
        axis.starts.push_back(low);
        axis.weights.push_back(weights);
    }
    return axis;
}

// OpenCV's INTER_LINEAR; weights in 1/2048. It clamps the weights at the borders of its horizontal pass, and the pixels
// in the vertical one.
Axis openCvAxis(int length, int resized, int from, int to, bool horizontal)
{
    double const scale = 1.0 / (static_cast<double>(resized) / length);
    Axis axis;
    for (int i = from; i < to; ++i)
    {
        float const position = static_cast<float>((i + 0.5) * scale - 0.5);
        int first = static_cast<int>(std::floor(position));
        float weight = position - static_cast<float>(first);
        if (horizontal && (first < 0 || first >= length - 1))
        {
            weight = 0.0F;
            first = std::min(std::max(first, 0), length - 1);
        }
        axis.starts.push_back(first);
        axis.weights.push_back({static_cast<int>(std::nearbyint((1.0F - weight) * 2048.0F)),
            static_cast<int>(std::nearbyint(weight * 2048.0F))});
    }
    return axis;
}

uint8_t toByte(int sum)
{
    return static_cast<uint8_t>(std::min(std::max(sum >> 22, 0), 255));
}

// Applies an axis of Pillow's to every line of pixels: `line` bytes from line to line, `step` from pixel to pixel.
std::vector<uint8_t> pillowPass(
    std::vector<uint8_t> const& pixels, Axis const& axis, int lines, size_t line, size_t step, bool columns)
{
    size_t const count = axis.starts.size();
    std::vector<uint8_t> result(count * static_cast<size_t>(lines) * 3);
    for (size_t y = 0; y < static_cast<size_t>(lines); ++y)
    {
        for (size_t i = 0; i < count; ++i)
        {
            for (size_t channel = 0; channel < 3; ++channel)
            {
                int sum = 1 << 21;
                for (size_t tap = 0; tap < axis.weights[i].size(); ++tap)
                {
                    size_t const pixel = static_cast<size_t>(axis.starts[i]) + tap;
                    sum += pixels[y * line + pixel * step + channel] * axis.weights[i][tap];
                }
                size_t const at = columns ? y * count + i : i * static_cast<size_t>(lines) + y;
                result[at * 3 + channel] = toByte(sum);
            }
        }
    }
    return result;
}

std::vector<uint8_t> pillow(Picture const& picture, Placement const& at, Axis const& columns, Axis const& rows)
{
    size_t const width = static_cast<size_t>(picture.width), shown = columns.starts.size();
    // Pillow 13 resizes the rows first where they shrink by more than twice as many pixels as the columns.
    int const less = at.height - at.resized[1];
    if (less > 0 && less > 2 * (at.width - at.resized[0]))
    {
        std::vector<uint8_t> const half = pillowPass(picture.rgb, rows, picture.width, 3, width * 3, false);
        return pillowPass(half, columns, static_cast<int>(rows.starts.size()), width * 3, 3, true);
    }
    std::vector<uint8_t> const half = pillowPass(picture.rgb, columns, picture.height, width * 3, 3, true);
    return pillowPass(half, rows, static_cast<int>(shown), 3, shown * 3, false);
}

// Weights are rounded once, with bits cut off on the way.
std::vector<uint8_t> openCv(Picture const& picture, Axis const& columns, Axis const& rows)
{
    std::vector<uint8_t> result;
    result.reserve(columns.starts.size() * rows.starts.size() * 3);
    auto const inside = [](int pixel, int length) { return static_cast<size_t>(std::min(std::max(pixel, 0), length - 1)); };
    for (size_t y = 0; y < rows.starts.size(); ++y)
    {
        for (size_t x = 0; x < columns.starts.size(); ++x)
        {
            for (size_t channel = 0; channel < 3; ++channel)
            {
                int value = 2;
                for (int i = 0; i < 2; ++i)
                {
                    size_t const line = inside(rows.starts[y] + i, picture.height) * static_cast<size_t>(picture.width);
                    int sum = 0;
                    for (int j = 0; j < 2; ++j)
                    {
                        size_t const pixel = line + inside(columns.starts[x] + j, picture.width);
                        sum += picture.rgb[pixel * 3 + channel] * columns.weights[x][static_cast<size_t>(j)];
                    }
                    value += (rows.weights[y][static_cast<size_t>(i)] * (sum >> 4)) >> 16;
                }
                result.push_back(static_cast<uint8_t>(value >> 2));
            }
        }
    }
    return result;
}

int whole(double value)
{
    return std::max(static_cast<int>(model::kRoundDown ? value : std::nearbyint(value)), 1);
}
} // namespace

Picture readPpm(std::string const& path)
{
    std::ifstream file(path, std::ios::binary);
    std::string kind;
    long numbers[3]{};
    file >> kind;
    for (long& number : numbers)
    {
        while ((file >> std::ws) && file.peek() == '#')
        {
            std::string comment;
            std::getline(file, comment);
        }
        file >> number;
    }
    file.get();
    if (!file || kind != "P6" || numbers[0] < 1 || numbers[1] < 1 || numbers[0] > 65535 || numbers[1] > 65535
        || numbers[2] != 255)
    {
        throw std::runtime_error(path + " is no binary PPM of bytes (P6); ffmpeg -i PICTURE picture.ppm writes one");
    }
    Picture picture;
    picture.width = static_cast<int>(numbers[0]);
    picture.height = static_cast<int>(numbers[1]);
    picture.rgb.resize(static_cast<size_t>(numbers[0]) * static_cast<size_t>(numbers[1]) * 3);
    file.read(reinterpret_cast<char*>(picture.rgb.data()), static_cast<std::streamsize>(picture.rgb.size()));
    if (!file)
    {
        throw std::runtime_error(path + " ends before its last pixel");
    }
    return picture;
}

Placement place(Picture const& picture, int width, int height)
{
    Placement at;
    at.width = picture.width;
    at.height = picture.height;
    int const size[2] = {width, height}, own[2] = {picture.width, picture.height};
    if (is(model::kPlace, "stretch"))
    {
        std::copy_n(size, 2, at.resized);
    }
    else if (is(model::kPlace, "fit"))
    {
        double ratio = HUGE_VAL;
        for (int i = 0; i < 2; ++i)
        {
            ratio = std::min(ratio, static_cast<double>(size[i] - model::kMargin) / own[i]);
        }
        for (int i = 0; i < 2; ++i)
        {
            at.resized[i] = whole(own[i] * ratio);
            at.offset[i] = model::kCentered ? static_cast<int>(std::nearbyint((size[i] - at.resized[i]) / 2.0 - 0.1)) : 0;
        }
    }
    else
    {
        int const largest = std::max(width, height);
        int const side = static_cast<int>(std::nearbyint(static_cast<double>(model::kResize * largest) / model::kLargest));
        if (side < largest)
        {
            throw std::runtime_error("the picture is resized to less than the crop");
        }
        int const more = std::max(own[0], own[1]), less = std::min(own[0], own[1]);
        int const far = static_cast<int>(static_cast<double>(static_cast<long long>(side) * more) / less);
        at.resized[0] = own[0] < own[1] ? side : far;
        at.resized[1] = own[0] < own[1] ? far : side;
        for (int i = 0; i < 2; ++i)
        {
            at.offset[i] = -static_cast<int>(std::nearbyint((at.resized[i] - size[i]) / 2.0));
        }
    }
    return at;
}

std::vector<float> prepare(Picture const& picture, Placement const& at, int width, int height)
{
    int const size[2] = {width, height};
    int from[2], to[2];
    for (int i = 0; i < 2; ++i)
    {
        from[i] = std::max(-at.offset[i], 0);
        to[i] = std::min(size[i] - at.offset[i], at.resized[i]);
    }
    std::vector<uint8_t> shown;
    if (ofOpenCv())
    {
        shown = openCv(picture, openCvAxis(at.width, at.resized[0], from[0], to[0], true),
            openCvAxis(at.height, at.resized[1], from[1], to[1], false));
    }
    else
    {
        shown = pillow(picture, at, pillowAxis(at.width, at.resized[0], from[0], to[0]),
            pillowAxis(at.height, at.resized[1], from[1], to[1]));
    }
    size_t const area = static_cast<size_t>(width) * static_cast<size_t>(height);
    std::vector<float> input(3 * area);
    for (int channel = 0; channel < 3; ++channel)
    {
        size_t const color = static_cast<size_t>(model::kBgr ? 2 - channel : channel);
        for (int y = 0; y < height; ++y)
        {
            for (int x = 0; x < width; ++x)
            {
                int const column = x - std::max(at.offset[0], 0), row = y - std::max(at.offset[1], 0);
                bool const inside = column >= 0 && column < to[0] - from[0] && row >= 0 && row < to[1] - from[1];
                size_t const pixel = inside ? static_cast<size_t>(row) * static_cast<size_t>(to[0] - from[0])
                        + static_cast<size_t>(column) : 0;
                float const value = inside ? shown[pixel * 3 + color] : model::kPad;
                size_t const place = static_cast<size_t>(channel) * area
                    + static_cast<size_t>(y) * static_cast<size_t>(width) + static_cast<size_t>(x);
                input[place] = (value / model::kDivisor - model::kMean[channel]) / model::kStd[channel];
            }
        }
    }
    return input;
}
