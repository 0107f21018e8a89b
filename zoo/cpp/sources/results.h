// What outputs mean, for people: classes of a classifier, boxes of a detector, else how large the values are.
#pragma once

#include "picture.h"

#include <cstdint>
#include <map>
#include <string>
#include <vector>

// An output of one picture, as float32.
struct Output
{
    std::vector<int64_t> shape; // without the batch
    std::vector<float> values;
};

struct Detection
{
    float box[4]; // x1, y1, x2, y2 in pixels of the picture, or of the input where there is no picture
    float score;
    int index;
};

std::string labelOf(int index);

// Class indices with their probabilities, best first.
std::vector<std::pair<int, double>> topClasses(std::vector<float> const& logits, size_t top);

// Of `boxes` (4, anchors) cx, cy, w, h and `scores` (classes, anchors), as zoo.tasks.detect chooses them.
std::vector<Detection> detections(Output const& boxes, Output const& scores, Placement const* placement);

// Lines for people. `placement` is null where the input was no picture.
std::vector<std::string> describe(std::map<std::string, Output> const& outputs, Placement const* placement);
