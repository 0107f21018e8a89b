// Pictures to network input, byte for byte as the zoo prepares them: resized as Pillow or OpenCV does, placed, normalised.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

struct Picture
{
    int width{0};
    int height{0};
    std::vector<uint8_t> rgb; // height x width x 3
};

// Where a picture lies in the input: input = picture x scale + offset.
struct Placement
{
    int width{0}, height{0};   // of the picture
    int resized[2]{0, 0};      // width and height after scaling
    int offset[2]{0, 0};       // of its left top corner; negative where a crop cut it away
};

// A binary PPM (P6) with values up to 255, as `ffmpeg -i picture.jpg picture.ppm` writes it. Throws std::runtime_error.
Picture readPpm(std::string const& path);

// As model.h says, for an input of this size.
Placement place(Picture const& picture, int width, int height);

// The input, 3 x height x width.
std::vector<float> prepare(Picture const& picture, Placement const& placement, int width, int height);
