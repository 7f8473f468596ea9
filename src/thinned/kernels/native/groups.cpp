// The products of a linear layer whose rows keep units of their own, group by group: Y = X Wᵀ + b, and by transposition
// ∂L/∂X = G W, for the units alone that a group keeps; ∂L/∂W = Gᵀ X, over the rows alone that keep both units.
//
// product() computes tiles of HIGH units × the rows of a group, which lie in the lanes of one or two vectors: a weight
// is one number for all lanes, so it is read where it lies, whichever units a group keeps, and nothing of the weights is
// copied. Blocks of TALL units × DEEP inputs stay in the second cache while all groups go by. Groups of few rows: few.cpp.
// correlate() has inputs in its lanes, PANEL of them, which a group keeps or drops together; grad and x are laid out in
// panels first. Each sum has one order, whatever the number of threads.

#include "groups.hpp"
#include "past.hpp"

#include <algorithm>

namespace thinned {
namespace THINNED_LEVEL {
namespace {

constexpr int HIGH = 6;
constexpr int64_t DEEP = 1024;  // inputs of a block of weights
constexpr int64_t ROW = DEEP + 16;  // of a block that was copied: no power of two, whose rows would share cache lines
constexpr int64_t NEAR = 1 << 18;   // bytes of laid-out rows that stay in the second cache
constexpr int64_t FAR = 1 << 23;    // bytes: a larger result is written past the caches

// The rows of each group in strips of two vectors, and at the end of one where that is enough.
template <class T>
struct Strips {
    explicit Strips(const Groups &g) : most(g.most()), lanes((most + LANES<T> - 1) / LANES<T> * LANES<T>) {}
    int64_t most, lanes;  // rows of a group at most; lanes that they take
    int64_t n() const { return (lanes + 2 * LANES<T> - 1) / (2 * LANES<T>); }
    int64_t width(int64_t strip) const { return std::min(2 * LANES<T>, lanes - strip * 2 * LANES<T>); }
};

// c[i][row] += the sum over k of w[i][k] x[k][row], for H units and the rows of a strip of NV vectors.
template <class T, int H, int NV, bool PICKED>
void tile(const T *const *w, const int32_t *cols, int64_t from, const T *x, int64_t depth, T *c) {
    using V = Vector<T>;
    constexpr int U = NV == 1 ? 2 : 1, L = V::lanes;  // two sums each where one vector would wait for its own products
    Reals<T> sum[U][H][NV];
    const T *row[H];
    UNROLL for (int i = 0; i < H; ++i) row[i] = w[i];
    UNROLL for (int i = 0; i < H; ++i)
        UNROLL for (int j = 0; j < NV; ++j) {
            sum[0][i][j] = V::load(c + (i * NV + j) * L);
            if (U > 1) sum[U - 1][i][j] = Reals<T>{};
        }
    int64_t k = 0;
    for (; k + U <= depth; k += U, x += U * NV * L)
        UNROLL for (int u = 0; u < U; ++u) {
            const int64_t at = PICKED ? cols[k + u] - from : k + u;
            Reals<T> part[NV];
            UNROLL for (int j = 0; j < NV; ++j) part[j] = V::load(x + (u * NV + j) * L);
            UNROLL for (int i = 0; i < H; ++i)
                UNROLL for (int j = 0; j < NV; ++j) sum[u][i][j] += part[j] * row[i][at];
        }
    if (k < depth) {
        const int64_t at = PICKED ? cols[k] - from : k;
        UNROLL for (int i = 0; i < H; ++i)
            UNROLL for (int j = 0; j < NV; ++j) sum[0][i][j] += V::load(x + j * L) * row[i][at];
    }
    UNROLL for (int i = 0; i < H; ++i)
        UNROLL for (int j = 0; j < NV; ++j) V::store(c + (i * NV + j) * L, U > 1 ? sum[0][i][j] + sum[U - 1][i][j] : sum[0][i][j]);
}

template <class T, int H, int NV, bool PICKED>
void tile_of(int64_t units, const T *const *w, const int32_t *cols, int64_t from, const T *x, int64_t depth, T *c) {
    if (units >= H) return tile<T, H, NV, PICKED>(w, cols, from, x, depth, c);
    if constexpr (H > 1) tile_of<T, H - 1, NV, PICKED>(units, w, cols, from, x, depth, c);
}

template <class T>
void into_strips(const Product &p, Range groups) {
    const Strips<T> strips(p.groups);
    const T *x = static_cast<const T *>(p.x);
    const T scale = T(p.scale);
    for (int64_t g = groups.begin; g < groups.end; ++g) {
        const int64_t first = p.groups.row(g), rows = p.groups.size(g), units = p.in.index ? p.in.count[g] : p.in.n;
        T *to = static_cast<T *>(p.strips) + g * strips.lanes * p.in.width;
        for (int64_t s = 0; s < strips.n(); ++s) {
            const int64_t width = strips.width(s);
            for (int64_t k = 0; k < units; k += LANES<T>) {
                const int64_t some = std::min(LANES<T>, units - k);
                for (int64_t lane = 0; lane < width; ++lane) {
                    const int64_t r = s * 2 * LANES<T> + lane;
                    const T *from = x + (first + r * p.groups.n) * p.in.width + k;
                    for (int64_t i = 0; i < some; ++i) to[(k + i) * width + lane] = r < rows ? from[i] * scale : T(0);
                }
            }
            to += width * p.in.width;
        }
    }
}

// Some units of the output, for the rows of all groups.
template <class T>
class Multiplier {
  public:
    explicit Multiplier(const Product &p)
        : p_(p), strips_(p.groups), y_(p.groups.n * p.tall * strips_.lanes), weights_(p.by_in == 1 ? 0 : p.tall * ROW),
          out_(p.groups.n), in_(p.groups.n) {}

    void run(Range units) {
        begin(units);
        std::fill(in_ + 0, in_ + p_.groups.n, 0);
        for (int64_t k = 0; k < p_.in.n; k += DEEP) inputs(units, {k, std::min(k + DEEP, p_.in.n)});
        for (int64_t g = 0; g < p_.groups.n; ++g) write(g, units.end == p_.out.n ? p_.out.width : out_[g].end);
    }

  private:
    T *sums(int64_t g) { return y_ + g * p_.tall * strips_.lanes; }

    // The units of each group, and their biases.
    void begin(Range units) {
        for (int64_t g = 0; g < p_.groups.n; ++g) {
            out_[g] = {below(p_.out, g, units.begin), below(p_.out, g, units.end)};
            const int64_t n = out_[g].end - out_[g].begin;
            T *c = sums(g);
            for (int64_t s = 0; s < strips_.n(); ++s)
                for (int64_t u = 0; u < n; ++u, c += strips_.width(s))
                    std::fill(c, c + strips_.width(s), p_.bias ? static_cast<const T *>(p_.bias)[unit(g, u)] : T(0));
        }
    }

    int64_t unit(int64_t g, int64_t u) const { return p_.out.index ? p_.out.index[g * p_.out.width + out_[g].begin + u] : out_[g].begin + u; }

    void inputs(Range units, Range some) {
        const T *weights = static_cast<const T *>(p_.weight);
        if (p_.by_in != 1) weights = transposed(units, some);
        for (int64_t g = 0; g < p_.groups.n; ++g) {
            const Range k{in_[g], below(p_.in, g, some.end)};
            in_[g] = k.end;
            const int32_t *cols = p_.in.index ? p_.in.index + g * p_.in.width + k.begin : nullptr;
            const T *x = static_cast<const T *>(p_.strips) + g * strips_.lanes * p_.in.width;
            T *c = sums(g);
            for (int64_t s = 0; s < strips_.n(); ++s) {
                const int64_t width = strips_.width(s), n = out_[g].end - out_[g].begin;
                for (int64_t u = 0; u < n; u += HIGH) {
                    const int64_t high = std::min<int64_t>(HIGH, n - u);
                    const T *rows[HIGH];
                    for (int64_t i = 0; i < high; ++i) {
                        const int64_t o = unit(g, u + i);
                        rows[i] = p_.by_in == 1 ? weights + o * p_.by_out + (cols ? 0 : some.begin) : weights + (o - units.begin) * ROW;
                    }
                    strip(width, high, rows, cols, p_.by_in == 1 ? 0 : some.begin, x + k.begin * width, k.end - k.begin, c + u * width);
                }
                x += width * p_.in.width, c += width * n;
            }
        }
    }

    static void strip(int64_t width, int64_t high, const T *const *rows, const int32_t *cols, int64_t from, const T *x, int64_t depth, T *c) {
        if (width > LANES<T>)
            cols ? tile_of<T, HIGH, 2, true>(high, rows, cols, from, x, depth, c) : tile_of<T, HIGH, 2, false>(high, rows, cols, from, x, depth, c);
        else
            cols ? tile_of<T, HIGH, 1, true>(high, rows, cols, from, x, depth, c) : tile_of<T, HIGH, 1, false>(high, rows, cols, from, x, depth, c);
    }

    // A block of the weights, a row a unit.
    const T *transposed(Range units, Range some) {
        const T *w = static_cast<const T *>(p_.weight);
        for (int64_t k = some.begin; k < some.end; k += EDGE)
            for (int64_t u = units.begin; u < units.end; u += EDGE) {
                const T *from = w + u * p_.by_out + k * p_.by_in;
                T *to = weights_ + (u - units.begin) * ROW + k - some.begin;
                if (p_.by_out == 1 && u + EDGE <= units.end && k + EDGE <= some.end) {
                    const T *rows[] = {from, from + p_.by_in, from + 2 * p_.by_in, from + 3 * p_.by_in};
                    transpose(rows, 0, to, ROW);
                    continue;
                }
                for (int64_t i = 0; i < std::min(EDGE, units.end - u); ++i)
                    for (int64_t j = 0; j < std::min(EDGE, some.end - k); ++j) to[i * ROW + j] = from[i * p_.by_out + j * p_.by_in];
            }
        return weights_;
    }

    // The results of a group, and zeros up to column `end`, where it has no units.
    void write(int64_t g, int64_t end) {
        const int64_t first = p_.groups.row(g), rows = p_.groups.size(g), n = out_[g].end - out_[g].begin;
        const T *c = sums(g);
        for (int64_t s = 0; s < strips_.n(); ++s) {
            const int64_t width = strips_.width(s);
            for (int64_t lane = 0; lane < width && s * 2 * LANES<T> + lane < rows; ++lane) {
                T *y = static_cast<T *>(p_.y) + (first + (s * 2 * LANES<T> + lane) * p_.groups.n) * p_.out.width + out_[g].begin;
                for (int64_t u = 0; u < n; ++u) y[u] = c[u * width + lane];
                std::fill(y + n, y + end - out_[g].begin, T(0));
            }
            c += width * n;
        }
    }

    const Product &p_;
    const Strips<T> strips_;
    const Room<T> y_, weights_;
    const Room<Range> out_;  // of each group's list of units
    const Room<int64_t> in_;  // how many inputs of each group are done
};

template <class T>
void multiply(const Product &p, Range blocks) {
    Multiplier<T> multiplier(p);
    for (int64_t b = blocks.begin; b < blocks.end; ++b) multiplier.run({b * p.tall, std::min((b + 1) * p.tall, p.out.n)});
}

// Where the units of a panel lie in a group's rows of the compact array; -1: nowhere.
void columns_of(const Side &side, int64_t g, int64_t panel, int32_t *out) {
    std::fill(out, out + PANEL, -1);
    for (int64_t i = 0; side.keeps(panel, g) && i < side.size(panel); ++i) out[i] = side.column(g, side.unit(panel, i));
}

// Panels of a side of a correlation: [panel][group][row of the group][PANEL], zeros where there is no unit.
template <class T>
void into_panels(const Correlation &c, const Side &side, const void *from, double scale, void *to, Range panels) {
    constexpr int64_t ONCE = 8;  // panels: a row is read by so many cache lines at a time
    const int64_t most = c.groups.most();
    const auto place = [&](int64_t p, int64_t g) { return static_cast<T *>(to) + (p * c.groups.n + g) * most * PANEL; };
    for (int64_t p = panels.begin; p < panels.end; p += ONCE)
        for (int64_t g = 0; g < c.groups.n; ++g) {
            const int64_t end = std::min(p + ONCE, panels.end), rows = c.groups.size(g), step = c.groups.n * side.width;
            const T *x = static_cast<const T *>(from) + c.groups.row(g) * side.width;
            int32_t columns[ONCE][PANEL];  // of a row of the compact array; -1: none
            for (int64_t q = p; q < end; ++q) columns_of(side, g, q, columns[q - p]);
            for (int64_t r = 0; r < rows; ++r, x += step)
                for (int64_t q = p; q < end; ++q) {
                    if (!side.keeps(q, g)) continue;
                    T *out = place(q, g) + r * PANEL;
                    if (!side.index && (q + 1) * PANEL <= side.n)
                        for (int64_t i = 0; i < PANEL; ++i) out[i] = x[q * PANEL + i] * T(scale);
                    else
                        for (int64_t i = 0; i < PANEL; ++i) out[i] = columns[q - p][i] < 0 ? T(0) : x[columns[q - p][i]] * T(scale);
                }
        }
}

struct Rows {  // of a group, in a panel
    int64_t begin, n;
};

// out[i][input] = the sum over rows of grad[row][i] x[row][input], for H units.
template <class T, int H>
void correlated(const T *grad, const T *x, const Rows *rows, int64_t n, T *out, int64_t stride) {
    using V = Vector<T>;
    constexpr int L = V::lanes, NV = PANEL / L;
    Reals<T> sum[H][NV] = {};
    for (int64_t q = 0; q < n; ++q) {
        const T *g = grad + rows[q].begin * PANEL, *a = x + rows[q].begin * PANEL;
        for (int64_t r = 0; r < rows[q].n; ++r, g += PANEL, a += PANEL) {
            Reals<T> part[NV];
            UNROLL for (int j = 0; j < NV; ++j) part[j] = V::load(a + j * L);
            UNROLL for (int i = 0; i < H; ++i)
                UNROLL for (int j = 0; j < NV; ++j) sum[i][j] += part[j] * g[i];
        }
    }
    UNROLL for (int i = 0; i < H; ++i)
        UNROLL for (int j = 0; j < NV; ++j) V::store(out + i * stride + j * L, sum[i][j]);
}

template <class T, int H, int DONE = 0>
void panel_of(const T *grad, const T *x, const Rows *rows, int64_t n, T *out, int64_t stride) {
    constexpr int rest = PANEL - DONE, high = (rest + (rest + H - 1) / H - 1) / ((rest + H - 1) / H);  // in equal parts
    correlated<T, high>(grad + DONE, x, rows, n, out + DONE * stride, stride);
    if constexpr (DONE + high < PANEL) panel_of<T, H, DONE + high>(grad, x, rows, n, out, stride);
}

// The rows of the groups that keep both panels; how many groups.
int64_t both(const Correlation &c, int64_t out, int64_t in, const Rows *sizes, Rows *rows) {
    int64_t n = 0;
    for (int64_t first = 0; first < c.groups.n; first += 64) {
        uint64_t bits = ~(uint64_t)0 >> std::max<int64_t>(64 - (c.groups.n - first), 0);
        if (c.out.keep) bits &= c.out.keep[out * c.out.words + first / 64];
        if (c.in.keep) bits &= c.in.keep[in * c.in.words + first / 64];
        for (int64_t g = first; bits; ++g, bits >>= 1)
            rows[n] = sizes[g], n += bits & 1;
    }
    return n;
}

template <class T>
void correlate(const Correlation &c, Range panels) {
    constexpr int NV = PANEL / Vector<T>::lanes, H = NV == 1 ? 16 : NV == 2 ? 6 : NV == 4 ? 3 : 1;
    const int64_t most = c.groups.most(), size = c.groups.n * most * PANEL, all = c.in.panels;
    // The rows of some panels stay in cache. Where units lie in order, their places are far apart: all at once.
    const int64_t some = c.in.order ? all : std::clamp<int64_t>(NEAR / std::max<int64_t>(size * sizeof(T), 1), 1, all), row = some * PANEL + PANEL;
    const bool past = c.out.n * c.in.n * (int64_t)sizeof(T) > FAR;
    const T *grads = static_cast<const T *>(c.grads), *xs = static_cast<const T *>(c.xs);
    const auto to = [&](int64_t unit) { return static_cast<T *>(c.out_weight) + unit * c.in.n; };
    const Room<T> block(PANEL * row);
    const Room<Rows> rows(c.groups.n), sizes(c.groups.n);
    for (int64_t g = 0; g < c.groups.n; ++g) sizes[g] = {g * most, c.groups.size(g)};
    const Room<int32_t> rank(c.in.order ? c.in.n : 0);  // where in a row of panels each unit lies
    for (int64_t i = 0; c.in.order && i < all; ++i)
        for (int64_t k = 0; k < c.in.size(i); ++k) rank[c.in.unit(i, k)] = (int32_t)(i * PANEL + k);
    for (int64_t a = 0; a < all; a += some)
        for (int64_t b = panels.begin; b < panels.end; ++b) {
            const int64_t end = std::min(a + some, all);
            for (int64_t i = a; i < end; ++i) {
                for (int64_t u = 0; !past && u < c.out.size(b); ++u) fetch(to(c.out.unit(b, u)) + i * PANEL, 1);
                const int64_t n = both(c, b, i, sizes, rows);
                panel_of<T, H>(grads + b * size, xs + i * size, rows, n, block + (i - a) * PANEL, row);
            }
            const int64_t first = a * PANEL, last = std::min(end * PANEL, c.in.n);
            for (int64_t u = 0; u < c.out.size(b); ++u) {
                T *row_of = to(c.out.unit(b, u));
                const T *from = block + u * row;
                if (c.in.order) for (int64_t k = 0; k < c.in.n; ++k) row_of[k] = from[rank[k]];
                else if (past) copy_past(row_of + first, from, (last - first) * sizeof(T));
                else std::memcpy(row_of + first, from, (last - first) * sizeof(T));
            }
        }
#ifdef __SSE2__
    if (past) _mm_sfence();
#endif
}

}  // namespace

int64_t strips(DType dtype, const Groups &groups) {
    return groups.n * (dtype == DType::float32 ? Strips<float>(groups).lanes : Strips<double>(groups).lanes);
}

void into_strips(DType dtype, const Product &p, Range groups) {
    if (dtype == DType::float32) into_strips<float>(p, groups);
    if (dtype == DType::float64) into_strips<double>(p, groups);
}

void multiply(DType dtype, const Product &p, Range blocks) {
    if (dtype == DType::float32) multiply<float>(p, blocks);
    if (dtype == DType::float64) multiply<double>(p, blocks);
}

void into_panels(DType dtype, const Correlation &c, bool of_grad, Range panels) {
    const Side &side = of_grad ? c.out : c.in;
    const void *from = of_grad ? c.grad : c.x;
    void *to = of_grad ? c.grads : c.xs;
    const double scale = of_grad ? 1.0 : c.scale;
    if (dtype == DType::float32) into_panels<float>(c, side, from, scale, to, panels);
    if (dtype == DType::float64) into_panels<double>(c, side, from, scale, to, panels);
}

void correlate(DType dtype, const Correlation &c, Range panels) {
    if (dtype == DType::float32) correlate<float>(c, panels);
    if (dtype == DType::float64) correlate<double>(c, panels);
}

}  // namespace THINNED_LEVEL
}  // namespace thinned
