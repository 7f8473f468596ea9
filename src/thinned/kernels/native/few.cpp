// The product of a linear layer whose rows keep units of their own, as in groups.cpp, where a group has few rows.
//
// The units of the output lie in lanes, PANEL of them, which a group keeps or drops together. Their weights are laid out
// once for all groups: a row of PANEL numbers for each input, of which a group reads those of its own inputs. A tile is
// some rows of a group × a panel; each number of x is one number for all lanes. Each sum has one order, whatever the
// number of threads.

#include "groups.hpp"

// A vector that is read once and used in many products: else the compiler reads it again for each.
#if defined(__GNUC__) && defined(THINNED_BYTES)
#ifdef __AVX512F__
#define STAY(v) __asm__("" : "+v"(v))
#else
#define STAY(v) __asm__("" : "+x"(v))
#endif
#else
#define STAY(v)
#endif

namespace thinned {
namespace THINNED_LEVEL {
namespace {

constexpr int64_t DEEP = 256;  // inputs of a panel's weights that stay in the first cache
constexpr int64_t FLAT = 64;   // inputs of many panels' weights that stay in the second

template <class T>
constexpr int ACROSS = PANEL / Vector<T>::lanes;  // vectors of a panel
template <class T>
constexpr int HIGH = ACROSS<T> == 1 ? 12 : ACROSS<T> == 2 ? 6 : ACROSS<T> == 4 ? 3 : 1;  // rows of a tile: sums fill the registers

// The rows of a group in parts of at most HIGH, as equal as may be.
template <class T>
int64_t each(int64_t rows) {
    const int64_t parts = std::max<int64_t>((rows + HIGH<T> - 1) / HIGH<T>, 1);
    return (rows + parts - 1) / parts;
}

// sum[row][unit] += the sum over k of x[k][row] w[k][unit], for R rows and the units of a panel.
template <class T, int R, bool PICKED>
void tile(const T *w, const int32_t *cols, int64_t from, const T *x, int64_t depth, T *c) {
    using V = Vector<T>;
    constexpr int NV = ACROSS<T>, L = V::lanes;
    Reals<T> sum[R][NV] = {};
    for (int64_t k = 0; k < depth; ++k, x += R) {
        const T *at = w + (PICKED ? cols[k] - from : k) * PANEL;
        Reals<T> part[NV];
        UNROLL for (int j = 0; j < NV; ++j) {
            part[j] = V::load(at + j * L);
            STAY(part[j]);
        }
        UNROLL for (int r = 0; r < R; ++r)
            UNROLL for (int j = 0; j < NV; ++j) sum[r][j] += part[j] * x[r];
    }
    UNROLL for (int r = 0; r < R; ++r)
        UNROLL for (int j = 0; j < NV; ++j) V::store(c + r * PANEL + j * L, V::load(c + r * PANEL + j * L) + sum[r][j]);
}

template <class T, int R, bool PICKED>
void tile_of(int64_t rows, const T *w, const int32_t *cols, int64_t from, const T *x, int64_t depth, T *c) {
    if (rows >= R) return tile<T, R, PICKED>(w, cols, from, x, depth, c);
    if constexpr (R > 1) tile_of<T, R - 1, PICKED>(rows, w, cols, from, x, depth, c);
}

// to[k][row] = scale from[row][k], for R rows.
template <class T, int R>
void side_by_side(int64_t rows, const T *from, int64_t step, int64_t n, T scale, T *to) {
    if (rows < R) {
        if constexpr (R > 1) side_by_side<T, R - 1>(rows, from, step, n, scale, to);
        return;
    }
    for (int64_t k = 0; k < n; ++k, to += R)
        UNROLL for (int r = 0; r < R; ++r) to[r] = from[r * step + k] * scale;
}

template <class T>
void into_tiles(const Product &p, Range groups) {
    for (int64_t g = groups.begin; g < groups.end; ++g) {
        const int64_t units = p.in.index ? p.in.count[g] : p.in.n, step = p.groups.n * p.in.width, rows = p.groups.size(g), some = each<T>(rows);
        const T *x = static_cast<const T *>(p.x) + p.groups.row(g) * p.in.width;
        T *to = static_cast<T *>(p.strips) + g * p.groups.most() * p.in.width;
        for (int64_t r = 0; r < rows; r += some)
            side_by_side<T, HIGH<T>>(std::min(some, rows - r), x + r * step, step, units, T(p.scale), to + r * p.in.width);
    }
}

// The weights of a panel, to[input][unit], where those of a unit lie side by side.
template <class T>
void from_units(const Product &p, int64_t panel, Range some, T *to) {
    const int64_t units = p.out.size(panel), n = some.end - some.begin;
    const T *from[PANEL];
    for (int64_t i = 0; i < units; ++i) from[i] = static_cast<const T *>(p.weight) + p.out.unit(panel, i) * p.by_out + some.begin;
    for (int64_t i = 0; i < PANEL; i += EDGE)
        for (int64_t k = 0; k < n; k += EDGE) {
            if (i + EDGE <= units && k + EDGE <= n) {
                transpose(from + i, k, to + k * PANEL + i, PANEL);
                continue;
            }
            for (int64_t a = k; a < std::min(k + EDGE, n); ++a)
                for (int64_t b = i; b < i + EDGE; ++b) to[a * PANEL + b] = b < units ? from[b][a] : T(0);
        }
}

// The same of some panels, to[panel][input of FLAT][unit], where those of an input lie side by side.
template <class T>
void from_inputs(const Product &p, Range panels, Range some, T *to) {
    const Room<int32_t> order(PANEL * (panels.end - panels.begin));
    for (int64_t q = panels.begin; q < panels.end; ++q)
        for (int64_t i = 0; i < p.out.size(q); ++i) order[(q - panels.begin) * PANEL + i] = (int32_t)p.out.unit(q, i);
    const int64_t share = (p.out.n + panels.end - panels.begin - 1) / (panels.end - panels.begin);
    for (int64_t k = some.begin; k < some.end; ++k) {
        const T *from = static_cast<const T *>(p.weight) + k * p.by_in;
        const int32_t *unit = order;
        T *at = to + (k - some.begin) * PANEL;
        for (int64_t q = panels.begin; q < panels.end; ++q, unit += PANEL, at += FLAT * PANEL) {
            const int64_t units = p.out.size(q);
            if (k + 2 < p.in.n) fetch(from + 2 * p.by_in + (q - panels.begin) * share, share);
            if (units == PANEL)
                for (int64_t i = 0; i < PANEL; ++i) at[i] = from[unit[i]];
            else
                for (int64_t i = 0; i < PANEL; ++i) at[i] = i < units ? from[unit[i]] : T(0);
        }
    }
}

// Some panels of the output, for the rows of all groups.
template <class T>
class Multiplier {
  public:
    explicit Multiplier(const Product &p)
        : p_(p), most_(p.groups.most()), whole_(p.by_in == 1), deep_(whole_ ? DEEP : FLAT),
          sums_(p.tall * p.groups.n * most_ * PANEL), weights_((whole_ ? 1 : p.tall) * deep_ * PANEL), done_(p.groups.n), next_(p.groups.n),
          sizes_(p.groups.n), each_(p.groups.n) {
        for (int64_t g = 0; g < p.groups.n; ++g) sizes_[g] = p.groups.size(g), each_[g] = each<T>(sizes_[g]);
    }

    void run(Range panels) {
        begin(panels);
        std::fill(done_ + 0, done_ + p_.groups.n, 0);
        for (int64_t k = 0; k < p_.in.n; k += deep_) {
            inputs(panels, {k, std::min(k + deep_, p_.in.n)});
            std::copy(next_ + 0, next_ + p_.groups.n, done_ + 0);
        }
        for (int64_t q = panels.begin; q < panels.end; ++q)
            for (int64_t g = 0; g < p_.groups.n; ++g)
                if (p_.out.keeps(q, g)) write(q, g, sums(q - panels.begin, g));
        for (int64_t g = 0; panels.begin == 0 && g < p_.groups.n; ++g) end(g);
    }

  private:
    T *sums(int64_t panel, int64_t g) { return sums_ + (panel * p_.groups.n + g) * most_ * PANEL; }

    // The biases.
    void begin(Range panels) {
        for (int64_t q = panels.begin; q < panels.end; ++q) {
            T bias[PANEL] = {};
            for (int64_t i = 0; p_.bias && i < p_.out.size(q); ++i) bias[i] = static_cast<const T *>(p_.bias)[p_.out.unit(q, i)];
            for (int64_t r = 0; r < p_.groups.n * most_; ++r) std::copy(bias, bias + PANEL, sums(q - panels.begin, 0) + r * PANEL);
        }
    }

    void inputs(Range panels, Range some) {
        for (int64_t g = 0; g < p_.groups.n; ++g) next_[g] = below(p_.in, g, some.end);
        if (!whole_) from_inputs<T>(p_, panels, some, weights_);
        for (int64_t q = panels.begin; q < panels.end; ++q) {
            const T *w = weights_ + (whole_ ? 0 : (q - panels.begin) * deep_ * PANEL);
            if (whole_) from_units<T>(p_, q, some, weights_);
            for (int64_t g = 0; g < p_.groups.n; ++g) {
                if (whole_) ahead(q + 1 < panels.end ? q + 1 : panels.begin, q + 1 < panels.end ? some : Range{some.end, std::min(some.end + deep_, p_.in.n)}, g);
                if (p_.out.keeps(q, g)) rows(g, some.begin, w, sums(q - panels.begin, g));
            }
        }
    }

    // The weights of the next panel, a part of its units with each group.
    void ahead(int64_t panel, Range some, int64_t g) const {
        const int64_t units = p_.out.size(panel);
        for (int64_t i = g * units / p_.groups.n; i < (g + 1) * units / p_.groups.n; ++i)
            fetch(static_cast<const T *>(p_.weight) + p_.out.unit(panel, i) * p_.by_out + some.begin, some.end - some.begin);
    }

    // The rows of a group.
    void rows(int64_t g, int64_t from, const T *w, T *c) {
        const int64_t all = sizes_[g], some = each_[g], depth = next_[g] - done_[g];
        const int32_t *cols = p_.in.index ? p_.in.index + g * p_.in.width + done_[g] : nullptr;
        const T *x = static_cast<const T *>(p_.strips) + g * most_ * p_.in.width;
        for (int64_t first = 0; first < all; first += some) {
            const int64_t n = std::min(some, all - first);
            const T *at = x + first * p_.in.width + n * done_[g];
            cols ? tile_of<T, HIGH<T>, true>(n, w, cols, from, at, depth, c + first * PANEL)
                 : tile_of<T, HIGH<T>, false>(n, w, cols, from, at, depth, c + first * PANEL);
        }
    }

    // The results of a group.
    void write(int64_t panel, int64_t g, const T *c) {
        const int64_t units = p_.out.size(panel), step = p_.groups.n * p_.out.width;
        int32_t column[PANEL];
        for (int64_t i = 0; i < units; ++i) column[i] = p_.out.column(g, p_.out.unit(panel, i));
        T *y = static_cast<T *>(p_.y) + p_.groups.row(g) * p_.out.width;
        if (units == PANEL && *std::min_element(column, column + PANEL) >= 0)
            for (int64_t r = 0; r < sizes_[g]; ++r, y += step, c += PANEL)
                UNROLL for (int64_t i = 0; i < PANEL; ++i) y[column[i]] = c[i];
        else
            for (int64_t r = 0; r < sizes_[g]; ++r, y += step, c += PANEL)
                for (int64_t i = 0; i < units; ++i)
                    if (column[i] >= 0) y[column[i]] = c[i];
    }

    // Zeros where a group has no units.
    void end(int64_t g) {
        const int64_t step = p_.groups.n * p_.out.width, n = p_.out.index ? p_.out.count[g] : p_.out.width;
        T *y = static_cast<T *>(p_.y) + p_.groups.row(g) * p_.out.width;
        for (int64_t r = 0; r < sizes_[g]; ++r, y += step) std::fill(y + n, y + p_.out.width, T(0));
    }

    const Product &p_;
    const int64_t most_;  // rows of a group
    const bool whole_;    // the weights of a unit lie side by side
    const int64_t deep_;  // inputs of a block
    const Room<T> sums_, weights_;
    const Room<int64_t> done_, next_;  // how many inputs of each group are done, and will be after this block
    const Room<int64_t> sizes_, each_;  // rows of each group, and of its tiles
};

template <class T>
void multiply_few(const Product &p, Range blocks) {
    Multiplier<T> multiplier(p);
    for (int64_t b = blocks.begin; b < blocks.end; ++b) multiplier.run({b * p.tall, std::min((b + 1) * p.tall, p.out.panels)});
}

}  // namespace

void into_tiles(DType dtype, const Product &p, Range groups) {
    if (dtype == DType::float32) into_tiles<float>(p, groups);
    if (dtype == DType::float64) into_tiles<double>(p, groups);
}

void multiply_few(DType dtype, const Product &p, Range blocks) {
    if (dtype == DType::float32) multiply_few<float>(p, blocks);
    if (dtype == DType::float64) multiply_few<double>(p, blocks);
}

}  // namespace THINNED_LEVEL
}  // namespace thinned
