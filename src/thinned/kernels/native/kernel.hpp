// The kernels, each compiled for every level of the instruction set (plain; avx2, avx512; neon), and the table
// of a level through which cpu.cpp calls them. Arrays are addresses of contiguous memory.
#pragma once
#include <algorithm>
#include <cstdint>
#include <string>

namespace thinned {

struct Draw {            // which Bernoulli bits: contract 1 of docs/design.md
    uint32_t k0, k1;     // the key's words
    uint64_t limit;      // kept where U < limit; 0 <= limit <= 2**32
};

struct Range {
    int64_t begin, end;
};

struct Connect {         // DropConnect with a mask for each sample
    int64_t out, in;     // the shape of the weights
    uint64_t start;      // unit (0, 0, 0) of (N, out, in)
    Draw draw;
    double scale;
};

struct Blocks {          // DropBlock
    int64_t channels, maps;         // of a sample; one map for each channel, or one for all
    int64_t size[3], block[3];      // of a map and of a block: depth, height, width
    uint64_t start;                 // the first seed of sample 0: (N, maps, *(size - block + 1))
    Draw draw;                      // what is not kept is a seed
};

struct Drop {            // y = kept ? x * scale + shift : fill
    Draw draw;
    uint64_t start;      // the unit of element 0
    int64_t inner;       // elements of a unit, one after the other
    double scale, shift, fill;
};

struct Noise {           // y = x (1 + deviation z)
    uint32_t k0, k1;
    uint64_t start;      // the normal number of element 0
    double deviation;
};

struct Dense {           // a linear layer of a thinned network, and max(0, y) if it clips
    const void *weight, *bias;      // w[o, i] at o * by_out + i * by_in; no bias: null
    int64_t in, out, by_in, by_out; // the most units that it reads and has in a network
    int64_t list_in, list_out;      // where their list begins in a network's lists; -1: all units
    double scale;                   // of the weights
    bool clip;
};

struct Networks {        // thinned networks of one perceptron, run on the same rows
    const void *x;       // the rows, as lay_out() gives them; where they have masks, (rows, units)
    int64_t rows, units;
    const uint32_t *words;  // the keys of each network's mask, k0 and k1, of limit, from unit `start` on; null: no masks
    uint64_t limit, start;
    const Dense *dense;
    int64_t layers;
    const int64_t *lists;  // of each network: for each dropout, how many units survive, and which, ascending
    int64_t lists_each;    // numbers of a network
    void *out;           // (networks, rows, units of the last layer)
    int64_t some;        // panels of an item; the items of network 0 come first
};

constexpr int64_t PANEL = 16;  // units that lie in the lanes of a tile

struct Groups {          // row i belongs to group (first + i) % n
    int64_t rows, n, first;
    int64_t row(int64_t group) const { return ((group - first) % n + n) % n; }  // the first of a group
    int64_t size(int64_t group) const { return rows > row(group) ? (rows - row(group) + n - 1) / n : 0; }
    int64_t most() const { return (rows + n - 1) / n; }
};

struct Side {            // the units on one side of a weight; where all are null, every group keeps all units
    int64_t n, width;        // all of them; columns of the array that has a group's units side by side
    int64_t panels;          // of at most PANEL units
    const int32_t *index;    // (groups, width): the units that each group keeps, ascending
    const int64_t *count;    // (groups): how many
    const int32_t *place;    // (groups, n): the column of each unit that a group keeps; -1: none
    const int32_t *order;    // (n): the units, panel by panel
    const int32_t *starts;   // (panels + 1): where in the order each panel begins
    const uint64_t *keep;    // (panels, words): a bit for each group that keeps units of a panel
    int64_t words;
    bool keeps(int64_t panel, int64_t group) const { return !keep || (keep[panel * words + group / 64] >> group % 64 & 1); }
    int64_t size(int64_t panel) const { return starts ? starts[panel + 1] - starts[panel] : std::min(PANEL, n - panel * PANEL); }
    int64_t unit(int64_t panel, int64_t i) const { return order ? order[starts[panel] + i] : panel * PANEL + i; }
    int32_t column(int64_t group, int64_t unit) const { return place ? place[group * n + unit] : (int32_t)unit; }
};

struct Product {         // y = scale x wᵀ + bias, with the units of each row's group
    Groups groups;
    Side in, out;
    const void *x, *weight, *bias;  // (rows, in.width); w[o, i] at o * by_out + i * by_in; (out.n), or null
    int64_t by_out, by_in;          // one of them is 1
    double scale;
    void *y;             // (rows, out.width); zeros in columns that a group does not fill
    int64_t tall;        // units of a block; of few rows: panels
    void *strips;        // for strips() rows of in.width numbers; of few rows: for groups.n * groups.most()
};

struct Correlation {     // out_weight = scale gradᵀ x, over the rows whose group keeps both units; else 0
    Groups groups;
    Side in, out;
    const void *grad, *x;  // (rows, out.width), (rows, in.width)
    double scale;
    void *out_weight;    // (out.n, in.n)
    void *grads, *xs;    // for panels: [panel][group][row of the group][PANEL]
};

// v ← μ·v + g, w ← w − lr·v, or with Nesterov's momentum w ← w − lr·(g + μ·v); without momentum w ← w − lr·g.
// The gradient of l1·|w| + l2/2·w² is added to g.
struct Descent { double lr, momentum, l1, l2; bool nesterov; };

// m ← β₁·m + (1 − β₁)·g, v ← β₂·v + (1 − β₂)·g², w ← keep·w − rate·m/(√v + ε); rate and ε hold the corrections.
struct Moments { double beta1, beta2, rest1, rest2, rate, eps, keep, l1, l2; };

enum class DType : int { float32 = 0, float64 = 1, float16 = 2, bfloat16 = 3 };

struct Level {
    const char *name;
    // Units start ... start + n - 1: 1 where kept, 0 where dropped.
    void (*mask)(uint8_t *out, uint64_t start, int64_t n, Draw draw);
    // y[n, o] = scale * sum over i of (kept ? w[o, i] : 0) * x[n, i], for the samples and rows in the ranges.
    void (*connect)(DType dtype, const void *x, const void *weight, void *y, const Connect &c, Range samples, Range rows);
    // grad_x[n, i] = scale * sum over o of (kept ? w[o, i] : 0) * grad[n, o].
    void (*connect_by_x)(DType dtype, const void *grad, const void *weight, void *grad_x, const Connect &c, Range samples);
    // grad_weight[o, i] = scale * sum over n of (kept ? grad[n, o] * x[n, i] : 0).
    void (*connect_by_weight)(DType dtype, const void *grad, const void *x, void *grad_weight, const Connect &c, int64_t samples,
                              Range rows);
    // Samples of x: 0 where a block has fallen, else x * places/kept places of the sample. `out` may be `x`.
    void (*drop_block)(DType dtype, const void *x, void *out, const Blocks &b, Range samples);
    // Elements first ... first + n - 1 of an array, to which x and out point. `out` may be `x`. Half precision is computed
    // in single and rounded once. `stream` writes past the caches.
    void (*drop)(DType dtype, const void *x, void *out, int64_t first, int64_t n, const Drop &how, bool stream);
    void (*noise)(DType dtype, const void *x, void *out, int64_t first, int64_t n, const Noise &how);
    // The rows of a panel; rows (rows, units) in panels, zeros where the last one has too many; networks on them.
    int64_t (*panel)(DType dtype);
    void (*lay_out)(DType dtype, const void *x, int64_t rows, int64_t units, void *out);
    void (*networks)(DType dtype, const Networks &all, Range items);
    // A product in two phases, another one for groups of few rows, and a correlation in two; each may be split over threads.
    int64_t (*strips)(DType dtype, const Groups &groups);
    void (*into_strips)(DType dtype, const Product &p, Range groups);
    void (*multiply)(DType dtype, const Product &p, Range blocks);
    void (*into_tiles)(DType dtype, const Product &p, Range groups);
    void (*multiply_few)(DType dtype, const Product &p, Range blocks);
    void (*into_panels)(DType dtype, const Correlation &c, bool of_grad, Range panels);
    void (*correlate)(DType dtype, const Correlation &c, Range panels);
    // A step of an optimizer for n elements of a parameter and their gradients.
    void (*descend)(DType dtype, void *w, void *v, const void *g, int64_t n, const Descent &rule);
    void (*adam)(DType dtype, void *w, void *m, void *v, const void *g, int64_t n, const Moments &rule);
    // Standard normal numbers start ... start + n - 1.
    void (*normals)(double *out, uint64_t start, int64_t n, uint32_t k0, uint32_t k1);
};

const Level &level_of(const std::string &name);  // the best that this processor has where there is no name; throws where it is not there

#define THINNED_LEVEL_OF(level)                                                                                        \
    namespace level {                                                                                                  \
    void mask(uint8_t *out, uint64_t start, int64_t n, Draw draw);                                                     \
    void connect(DType dtype, const void *x, const void *weight, void *y, const Connect &c, Range samples, Range rows); \
    void connect_by_x(DType dtype, const void *grad, const void *weight, void *grad_x, const Connect &c, Range samples); \
    void connect_by_weight(DType dtype, const void *grad, const void *x, void *grad_weight, const Connect &c, int64_t samples, Range rows); \
    void drop_block(DType dtype, const void *x, void *out, const Blocks &b, Range samples);                            \
    void drop(DType dtype, const void *x, void *out, int64_t first, int64_t n, const Drop &how, bool stream);          \
    void noise(DType dtype, const void *x, void *out, int64_t first, int64_t n, const Noise &how);                     \
    int64_t panel(DType dtype);                                                                                        \
    void lay_out(DType dtype, const void *x, int64_t rows, int64_t units, void *out);                                  \
    void networks(DType dtype, const Networks &all, Range items);                                                      \
    int64_t strips(DType dtype, const Groups &groups);                                                                 \
    void into_strips(DType dtype, const Product &p, Range groups);                                                     \
    void into_tiles(DType dtype, const Product &p, Range groups);                                                      \
    void multiply_few(DType dtype, const Product &p, Range blocks);                                                    \
    void multiply(DType dtype, const Product &p, Range blocks);                                                        \
    void into_panels(DType dtype, const Correlation &c, bool of_grad, Range panels);                                   \
    void correlate(DType dtype, const Correlation &c, Range panels);                                                   \
    void descend(DType dtype, void *w, void *v, const void *g, int64_t n, const Descent &rule);                        \
    void adam(DType dtype, void *w, void *m, void *v, const void *g, int64_t n, const Moments &rule);                  \
    void normals(double *out, uint64_t start, int64_t n, uint32_t k0, uint32_t k1);                                    \
    inline constexpr Level table{#level, mask, connect, connect_by_x, connect_by_weight, drop_block, drop, noise,      \
                                 panel, lay_out, networks, strips, into_strips, multiply, into_tiles, multiply_few,    \
                                 into_panels, correlate, descend, adam, normals};                                      \
    }

THINNED_LEVEL_OF(plain)
#ifdef THINNED_X86
THINNED_LEVEL_OF(avx2)
THINNED_LEVEL_OF(avx512)
#endif
#ifdef THINNED_ARM
THINNED_LEVEL_OF(neon)
#endif
#undef THINNED_LEVEL_OF

}  // namespace thinned
