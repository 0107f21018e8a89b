#include "results.h"

#include "model.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <numeric>
#include <stdexcept>

namespace
{
constexpr size_t kCandidates = 30000;

template <typename... Values>
std::string formatted(char const* format, Values... values)
{
    char line[256];
    std::snprintf(line, sizeof(line), format, values...);
    return line;
}

// Places ordered by falling value, equal ones as they were.
std::vector<size_t> falling(std::vector<float> const& values)
{
    std::vector<size_t> order(values.size());
    std::iota(order.begin(), order.end(), size_t{0});
    std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return values[a] > values[b]; });
    return order;
}

struct Candidate
{
    size_t anchor;
    int index;
    float score;
};

// Each anchor for its best class, best first.
std::vector<Candidate> bestClasses(Output const& scores, size_t anchors, size_t classes)
{
    std::vector<Candidate> found;
    for (size_t anchor = 0; anchor < anchors; ++anchor)
    {
        Candidate best{anchor, 0, scores.values[anchor]};
        for (size_t index = 1; index < classes; ++index)
        {
            float const score = scores.values[index * anchors + anchor];
            if (score > best.score)
            {
                best.index = static_cast<int>(index);
                best.score = score;
            }
        }
        if (best.score > model::kConf)
        {
            found.push_back(best);
        }
    }
    std::stable_sort(found.begin(), found.end(), [](auto const& a, auto const& b) { return a.score > b.score; });
    found.resize(std::min(found.size(), kCandidates));
    return found;
}

// The best scores of any class, of the best anchors.
std::vector<Candidate> bestScores(Output const& scores, size_t anchors, size_t classes)
{
    std::vector<float> best(anchors, -HUGE_VALF);
    for (size_t i = 0; i < anchors * classes; ++i)
    {
        best[i % anchors] = std::max(best[i % anchors], scores.values[i]);
    }
    std::vector<size_t> order = falling(best);
    order.resize(std::min(order.size(), static_cast<size_t>(model::kMost)));
    std::vector<Candidate> all;
    for (size_t anchor : order)
    {
        for (size_t index = 0; index < classes; ++index)
        {
            all.push_back({anchor, static_cast<int>(index), scores.values[index * anchors + anchor]});
        }
    }
    std::stable_sort(all.begin(), all.end(), [](auto const& a, auto const& b) { return a.score > b.score; });
    all.resize(std::min(all.size(), static_cast<size_t>(model::kMost)));
    all.erase(std::remove_if(all.begin(), all.end(), [](auto const& c) { return !(c.score > model::kConf); }), all.end());
    return all;
}

// All in float32, with the class added to the corners, as the references compare them.
bool overlap(Detection const& a, Detection const& b)
{
    float corners[2][4];
    for (int i = 0; i < 4; ++i)
    {
        corners[0][i] = a.box[i] + static_cast<float>(a.index) * 7680.0F;
        corners[1][i] = b.box[i] + static_cast<float>(b.index) * 7680.0F;
    }
    float const width = std::min(corners[0][2], corners[1][2]) - std::max(corners[0][0], corners[1][0]);
    float const height = std::min(corners[0][3], corners[1][3]) - std::max(corners[0][1], corners[1][1]);
    float const shared = std::max(width, 0.0F) * std::max(height, 0.0F);
    float areas[2];
    for (int i = 0; i < 2; ++i)
    {
        areas[i] = (corners[i][2] - corners[i][0]) * (corners[i][3] - corners[i][1]);
    }
    return shared / (areas[0] + areas[1] - shared) > model::kIou;
}

void toPicture(Detection& found, Placement const& at)
{
    for (int i = 0; i < 4; ++i)
    {
        int const axis = i % 2, side = axis == 0 ? at.width : at.height;
        float const scale = static_cast<float>(static_cast<double>(at.resized[axis]) / side);
        float const moved = (found.box[i] - static_cast<float>(at.offset[axis])) / scale;
        found.box[i] = std::min(std::max(moved, 0.0F), static_cast<float>(side));
    }
}
} // namespace

std::string labelOf(int index)
{
    return index < model::kLabelCount ? model::kLabels[index] : "class " + std::to_string(index);
}

std::vector<std::pair<int, double>> topClasses(std::vector<float> const& logits, size_t top)
{
    std::vector<size_t> const order = falling(logits);
    double sum = 0.0;
    for (float value : logits)
    {
        sum += std::exp(static_cast<double>(value) - static_cast<double>(logits[order[0]]));
    }
    std::vector<std::pair<int, double>> found;
    for (size_t i = 0; i < std::min(top, order.size()); ++i)
    {
        double const share = std::exp(static_cast<double>(logits[order[i]]) - static_cast<double>(logits[order[0]]));
        found.emplace_back(static_cast<int>(order[i]), share / sum);
    }
    return found;
}

std::vector<Detection> detections(Output const& boxes, Output const& scores, Placement const* placement)
{
    if (boxes.shape.size() != 2 || scores.shape.size() != 2 || boxes.shape[0] != 4 || boxes.shape[1] != scores.shape[1])
    {
        throw std::runtime_error("the outputs boxes and scores are not (4, anchors) and (classes, anchors)");
    }
    size_t const anchors = static_cast<size_t>(boxes.shape[1]), classes = static_cast<size_t>(scores.shape[0]);
    std::vector<Detection> kept;
    for (Candidate const& one : (model::kNms ? bestClasses : bestScores)(scores, anchors, classes))
    {
        Detection found{{}, one.score, one.index};
        for (size_t i = 0; i < 2; ++i)
        {
            float const center = boxes.values[i * anchors + one.anchor];
            float const half = boxes.values[(i + 2) * anchors + one.anchor] / 2.0F;
            found.box[i] = center - half;
            found.box[i + 2] = center + half;
        }
        auto const hides = [&](Detection const& better) { return overlap(better, found); };
        if (model::kNms && std::any_of(kept.begin(), kept.end(), hides))
        {
            continue;
        }
        kept.push_back(found);
        if (kept.size() == static_cast<size_t>(model::kMost))
        {
            break;
        }
    }
    for (Detection& found : kept)
    {
        if (placement != nullptr)
        {
            toPicture(found, *placement);
        }
    }
    return kept;
}

std::vector<std::string> describe(std::map<std::string, Output> const& outputs, Placement const* placement)
{
    std::vector<std::string> lines;
    std::string const task = model::kTask;
    if (task == "classify")
    {
        for (auto const& found : topClasses(outputs.at("logits").values, 5))
        {
            lines.push_back(formatted("%5.1f%%  %s (%d)", 100.0 * found.second, labelOf(found.first).c_str(), found.first));
        }
        return lines;
    }
    if (task == "detect")
    {
        for (Detection const& found : detections(outputs.at("boxes"), outputs.at("scores"), placement))
        {
            lines.push_back(formatted("%.3f  %s  %.1f %.1f %.1f %.1f", static_cast<double>(found.score),
                labelOf(found.index).c_str(), static_cast<double>(found.box[0]), static_cast<double>(found.box[1]),
                static_cast<double>(found.box[2]), static_cast<double>(found.box[3])));
        }
        return lines.empty() ? std::vector<std::string>{"nothing found"} : lines;
    }
    for (auto const& output : outputs)
    {
        auto const ends = std::minmax_element(output.second.values.begin(), output.second.values.end());
        lines.push_back(formatted("%s: %g to %g", output.first.c_str(), static_cast<double>(*ends.first),
            static_cast<double>(*ends.second)));
    }
    return lines;
}
