// YOLO outputs to detections: boxes (N, 4, A) cx, cy, w, h and scores (N, C, A) in, (N, max_det, 6) out.
// The same decisions, in the same float32 arithmetic, as zoo.tasks.detect.non_max_suppression (compiled without FMA).
// Every buffer has a fixed size and the counts stay on the GPU, so the three kernels can be captured in a CUDA graph.
// The last one leaves `state` and `rank` at zero, as the next frame needs them.

typedef unsigned long long uint64;
typedef unsigned int uint32;

#define CLASS_GROUPS 8        // threads that share the classes of an anchor
#define RANK_TILE 1024        // keys that a block of `rank_candidates` compares with
#define NMS_THREADS 512
#define MAX_CANDIDATES 30000
#define MAX_DETECTIONS 1024
#define CLASS_OFFSET 7680.0f  // larger than any picture, so that boxes of two classes never overlap

#define INFINITE __int_as_float(0x7f800000)

__device__ bool finite(float x) { return x - x == 0.0f; }

__device__ bool overlaps(const float *a, float area_a, const float *b, float area_b, float iou)
{
    float width = fminf(a[2], b[2]) - fmaxf(a[0], b[0]), height = fminf(a[3], b[3]) - fmaxf(a[1], b[1]);
    float shared = fmaxf(width, 0.0f) * fmaxf(height, 0.0f);
    return shared / (area_a + area_b - shared) > iou;
}

// Appends the anchors whose best class scores more than `conf`. A key is the inverted score, then the anchor:
// ascending keys are descending scores, ties in the anchors' order. state[n] = (count, not finite).
extern "C" __global__ void select_candidates(const float *boxes, const float *scores, int anchors, int classes,
                                             float conf, uint64 *keys, int *labels, uint32 *state)
{
    __shared__ float group_best[CLASS_GROUPS][32];
    __shared__ int group_label[CLASS_GROUPS][32];
    int anchor = blockIdx.x * 32 + threadIdx.x, group = threadIdx.y, image = blockIdx.y;
    float best = -INFINITE;
    int label = classes;
    bool bad = false;
    if (anchor < anchors) {
        const float *score = scores + (size_t)image * classes * anchors + anchor;
#pragma unroll 5
        for (int c = group; c < classes; c += CLASS_GROUPS) {
            float value = score[(size_t)c * anchors];
            bad = bad || !(value < INFINITE);
            if (value > best) {
                best = value;
                label = c;
            }
        }
    }
    group_best[group][threadIdx.x] = best;
    group_label[group][threadIdx.x] = label;
    if (bad)
        atomicOr(&state[2 * image + 1], 1u);
    __syncthreads();
    if (group != 0 || anchor >= anchors)
        return;
    for (int g = 1; g < CLASS_GROUPS; g++) {
        float other = group_best[g][threadIdx.x];
        if (other > best || (other == best && group_label[g][threadIdx.x] < label)) {
            best = other;
            label = group_label[g][threadIdx.x];
        }
    }
    if (best > conf) {
        uint32 slot = atomicAdd(&state[2 * image], 1u);
        keys[(size_t)image * anchors + slot] = ((uint64)~__float_as_uint(best) << 32) | (uint32)anchor;
        labels[(size_t)image * anchors + slot] = label;
        const float *box = boxes + (size_t)image * 4 * anchors + anchor;
        for (int i = 0; i < 2; i++) {
            float centre = box[(size_t)i * anchors], half = box[(size_t)(i + 2) * anchors] / 2.0f;
            if (!finite(centre - half) || !finite(centre + half))
                atomicOr(&state[2 * image + 1], 1u);
        }
    }
}

// rank[i] = how many keys are smaller than keys[i], its place in the sorted order. Keys are unique.
extern "C" __global__ void rank_candidates(const uint64 *keys, int anchors, const uint32 *state, uint32 *rank)
{
    __shared__ uint64 tile[RANK_TILE];
    int image = blockIdx.z, count = (int)state[2 * image];
    int first = blockIdx.x * blockDim.x, start = blockIdx.y * RANK_TILE;
    if (first >= count || start >= count)
        return;
    keys += (size_t)image * anchors;
    int size = min(RANK_TILE, count - start);
    for (int i = threadIdx.x; i < size; i += blockDim.x)
        tile[i] = keys[start + i];
    __syncthreads();
    int i = first + threadIdx.x;
    if (i >= count)
        return;
    uint64 key = keys[i];
    uint32 smaller = 0;
    for (int j = 0; j < size; j++)
        smaller += tile[j] < key;
    if (smaller)
        atomicAdd(&rank[(size_t)image * anchors + i], smaller);
}

// Greedy suppression, one block per image: candidates in order, NMS_THREADS at a time, against all boxes kept so far.
// placement[n] = (offset x, y, scale x, y, picture width, height); output[n] = (count as int, then the rows
// x1, y1, x2, y2, score, class in pixels of the picture). The count is -1 when a score or box was not finite.
extern "C" __global__ void suppress(const float *boxes, const uint64 *keys, const int *labels, uint32 *rank,
                                    uint32 *order, uint32 *state, int anchors, float iou, int max_det,
                                    const float *placement, float *output)
{
    __shared__ float kept_box[MAX_DETECTIONS][4], kept_area[MAX_DETECTIONS];
    __shared__ float tile_box[NMS_THREADS][4], tile_area[NMS_THREADS];
    __shared__ uint32 alive[NMS_THREADS / 32];
    int image = blockIdx.x, thread = threadIdx.x;
    boxes += (size_t)image * 4 * anchors;
    keys += (size_t)image * anchors;
    labels += (size_t)image * anchors;
    rank += (size_t)image * anchors;
    order += (size_t)image * anchors;
    placement += 6 * image;
    output += (size_t)image * (1 + 6 * max_det);

    int count = (int)state[2 * image];
    bool bad = state[2 * image + 1] != 0;
    for (int i = thread; i < count; i += NMS_THREADS) {
        order[rank[i]] = i;
        rank[i] = 0;
    }
    __syncthreads();
    if (thread == 0)
        state[2 * image] = state[2 * image + 1] = 0;
    count = bad ? 0 : min(count, MAX_CANDIDATES);

    int kept = 0;
    for (int start = 0; start < count && kept < max_det; start += NMS_THREADS) {
        if (thread < NMS_THREADS / 32)
            alive[thread] = 0;
        __syncthreads();
        float corner[4], box[4], area = 0.0f, score = 0.0f;
        int label = 0;
        bool live = start + thread < count;
        if (live) {
            uint32 i = order[start + thread];
            uint32 anchor = (uint32)keys[i];
            score = __uint_as_float(~(uint32)(keys[i] >> 32));
            label = labels[i];
            for (int k = 0; k < 2; k++) {
                float centre = boxes[(size_t)k * anchors + anchor], half = boxes[(size_t)(k + 2) * anchors + anchor] / 2.0f;
                corner[k] = centre - half;
                corner[k + 2] = centre + half;
            }
            for (int k = 0; k < 4; k++)
                tile_box[thread][k] = box[k] = corner[k] + label * CLASS_OFFSET;
            tile_area[thread] = area = (box[2] - box[0]) * (box[3] - box[1]);
            for (int k = 0; k < kept && live; k++)
                live = !overlaps(kept_box[k], kept_area[k], box, area, iou);
            if (live)
                atomicOr(&alive[thread / 32], 1u << (thread % 32));
        }
        __syncthreads();

        // The first box alive from `cursor` on is kept and kills the later ones that it overlaps. Only bits behind `lead`
        // change while slower threads still look for `lead`, so one barrier per kept box is enough.
        for (int cursor = 0; kept < max_det; kept++) {
            int lead = NMS_THREADS;
            for (int word = cursor / 32; word < NMS_THREADS / 32 && lead == NMS_THREADS; word++) {
                uint32 bits = alive[word] & (word == cursor / 32 ? ~0u << (cursor % 32) : ~0u);
                if (bits)
                    lead = word * 32 + __ffs((int)bits) - 1;
            }
            if (lead == NMS_THREADS)
                break;
            cursor = lead + 1;
            if (thread == lead) {
                for (int k = 0; k < 4; k++) {
                    float moved = (corner[k] - placement[k % 2]) / placement[2 + k % 2];
                    output[1 + 6 * kept + k] = fminf(fmaxf(moved, 0.0f), placement[4 + k % 2]);
                    kept_box[kept][k] = box[k];
                }
                kept_area[kept] = area;
                output[1 + 6 * kept + 4] = score;
                output[1 + 6 * kept + 5] = (float)label;
            }
            if (live && thread > lead && overlaps(tile_box[lead], tile_area[lead], box, area, iou)) {
                live = false;
                atomicAnd(&alive[thread / 32], ~(1u << (thread % 32)));
            }
            __syncthreads();
        }
        __syncthreads();
    }
    if (thread == 0)
        *(int *)output = bad ? -1 : kept;
}
