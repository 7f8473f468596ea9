// DropConnect's products with a mask for each sample, made on the way and never stored.
//
// Unit (n, o, i) of (N, out, in) keeps weight w[o, i] for sample n. Sums have one order at every level of the
// instruction set, for any number of threads: y over i in P = 32 partial sums (16 in double), i mod P, that are then
// added in halves; grad_x over o, and grad_weight over n, one after the other.

#include "select.hpp"

#include <algorithm>
#include <vector>

namespace thinned {
namespace THINNED_LEVEL {
namespace {

constexpr int64_t SAMPLES = 8, ROWS = 8;  // whose masks wait together, whose products are added in one pass
constexpr int64_t UNITS = 1 << 14;        // of a tile, for each sample: 64 KiB of weights, 2 KiB of bits

template <class T>
struct Strip {  // P numbers
    static constexpr int P = 128 / sizeof(T), W = Vector<T>::lanes, V = P / W;
    static constexpr uint64_t all = (uint64_t(1) << P) - 1;
    Reals<T> v[V];
};

// A word whose bytes are in ascending order, as nearly every machine has them anyway.
inline uint64_t ascending(uint64_t word) {
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    return __builtin_bswap64(word);
#else
    return word;
#endif
}

struct Row {  // packed bits that begin anywhere
    const char *bytes;
    int shift;
    uint64_t at(uint64_t i) const {  // 32 bits from i on, a multiple of 8, in the lower half
        uint64_t word;
        std::memcpy(&word, bytes + i / 8, sizeof word);
        return ascending(word) >> shift;
    }
};

// The bits of a tile: some rows, for each of some samples.
class Tile {
public:
    explicit Tile(int64_t most) : size_(packed_words(most) + 1), words_(SAMPLES * size_) {}

    void draw(int64_t sample, uint64_t start, int64_t n, Draw draw) {
        offset_[sample] = start % 128;
        uint64_t *words = words_.data() + sample * size_;
        pack(words, start, n, draw);
        if (ascending(1) != 1) std::transform(words, words + size_, words, ascending);
    }

    // The bits of a sample from unit `at` of the tile on.
    Row row(int64_t sample, int64_t at) const {
        const uint64_t bit = at + offset_[sample];
        return {reinterpret_cast<const char *>(words_.data() + sample * size_) + bit / 8, (int)(bit % 8)};
    }

private:
    int64_t size_;
    std::vector<uint64_t> words_;
    int64_t offset_[SAMPLES];
};

// Calls use(tile, n, samples, o, rows) for all samples and rows in the ranges.
template <class Use>
inline void for_each_tile(const Connect &c, Range samples, Range rows, Use use) {
    const int64_t high = std::clamp<int64_t>(UNITS / std::max<int64_t>(c.in, 1), 1, rows.end - rows.begin);
    Tile tile(high * c.in);
    for (int64_t o = rows.begin; o < rows.end; o += high) {
        const int64_t some = std::min(high, rows.end - o);
        for (int64_t n = samples.begin; n < samples.end; n += SAMPLES) {
            const int64_t many = std::min(SAMPLES, samples.end - n);
            for (int64_t s = 0; s < many; ++s) tile.draw(s, c.start + uint64_t((n + s) * c.out + o) * c.in, some * c.in, c.draw);
            use(tile, n, many, o, some);
        }
    }
}

template <class T>
inline T total(Strip<T> sum) {
    for (int half = Strip<T>::V / 2; half > 0; half /= 2)
        for (int j = 0; j < half; ++j) sum.v[j] += sum.v[j + half];
    T lane[Strip<T>::W];
    std::memcpy(lane, &sum.v[0], sizeof lane);
    for (int half = Strip<T>::W / 2; half > 0; half /= 2)
        for (int j = 0; j < half; ++j) lane[j] += lane[j + half];
    return lane[0];
}

// The sum over i of w[i] x[i], by the bits from `at` on.
template <class T>
inline T dot(const T *w, const T *x, int64_t n, Row row) {
    using S = Strip<T>;
    S sum{};
    int64_t i = 0;
    for (; i + S::P <= n; i += S::P) {
        const uint64_t bits = row.at(i);
        for (int j = 0; j < S::V; ++j)
            sum.v[j] += chosen<T>(w + i, bits, j * S::W) * Vector<T>::load(x + i + j * S::W);
    }
    if (i < n) {
        const uint64_t inside = S::all >> (S::P - (n - i)), bits = row.at(i) & inside;
        for (int j = 0; j < S::V; ++j)
            sum.v[j] += chosen<T, true>(w + i, bits, j * S::W) * chosen<T, true>(x + i, inside, j * S::W);
    }
    return total(sum);
}

// Calls add(strip, i, edge, inside) for the strips of sum[0 ... n); `inside` has a 1 for each place of
// the last one, the edge, that exists.
template <class T, class Add>
inline void for_each_strip(T *sum, int64_t n, Add add) {
    using S = Strip<T>;
    const auto one = [&add](T *at, int64_t i, auto edge, uint64_t inside) {
        S strip;
        for (int j = 0; j < S::V; ++j) strip.v[j] = Vector<T>::load(at + j * S::W);
        add(strip, i, edge, inside);
        for (int j = 0; j < S::V; ++j) Vector<T>::store(at + j * S::W, strip.v[j]);
    };
    int64_t i = 0;
    for (; i + S::P <= n; i += S::P) one(sum + i, i, std::false_type(), S::all);
    if (i < n) {
        T copy[S::P] = {};
        std::copy(sum + i, sum + n, copy);
        one(copy, i, std::true_type(), S::all >> (S::P - (n - i)));
        std::copy(copy, copy + (n - i), sum + i);
    }
}

template <class T>
void forward(const T *x, const T *weight, T *y, const Connect &c, Range samples, Range rows) {
    const T scale = (T)c.scale;
    for_each_tile(c, samples, rows, [=, &c](const Tile &tile, int64_t n, int64_t many, int64_t o, int64_t some) {
        for (int64_t r = 0; r < some; ++r)
            for (int64_t s = 0; s < many; ++s)
                y[(n + s) * c.out + o + r] = dot(weight + (o + r) * c.in, x + (n + s) * c.in, c.in, tile.row(s, r * c.in)) * scale;
    });
}

template <class T>
void by_x(const T *grad, const T *weight, T *grad_x, const Connect &c, Range samples) {
    const int64_t in = c.in;
    T *const begin = grad_x + samples.begin * c.in, *const end = grad_x + samples.end * c.in;
    std::fill(begin, end, (T)0);
    for_each_tile(c, samples, {0, c.out}, [=, &c](const Tile &tile, int64_t n, int64_t many, int64_t o, int64_t some) {
        for (int64_t first = 0; first < some; first += ROWS) {
            const int64_t last = std::min(first + ROWS, some);
            for (int64_t s = 0; s < many; ++s) {
                const T *g = grad + (n + s) * c.out + o;
                Row row[ROWS];
                for (int64_t r = first; r < last; ++r) row[r - first] = tile.row(s, r * c.in);
                for_each_strip(grad_x + (n + s) * c.in, c.in, [=, &row](Strip<T> &sum, int64_t i, auto edge, uint64_t inside) {
                    for (int64_t r = first; r < last; ++r) {
                        const uint64_t bits = row[r - first].at(i) & inside;
                        const T *w = weight + (o + r) * in + i;
                        for (int j = 0; j < Strip<T>::V; ++j) sum.v[j] += chosen<T, edge>(w, bits, j * Strip<T>::W) * g[r];
                    }
                });
            }
        }
    });
    for (T *p = begin; p < end; ++p) *p *= (T)c.scale;
}

template <class T>
void by_weight(const T *grad, const T *x, T *grad_weight, const Connect &c, int64_t samples, Range rows) {
    const int64_t out = c.out, in = c.in;
    T *const begin = grad_weight + rows.begin * c.in, *const end = grad_weight + rows.end * c.in;
    std::fill(begin, end, (T)0);
    for_each_tile(c, {0, samples}, rows, [=, &c](const Tile &tile, int64_t n, int64_t many, int64_t o, int64_t some) {
        for (int64_t r = 0; r < some; ++r) {
            const T *g = grad + n * c.out + o + r;
            Row row[SAMPLES];
            for (int64_t s = 0; s < many; ++s) row[s] = tile.row(s, r * c.in);
            for_each_strip(grad_weight + (o + r) * c.in, c.in, [=, &row](Strip<T> &sum, int64_t i, auto edge, uint64_t inside) {
                for (int64_t s = 0; s < many; ++s) {
                    const uint64_t bits = row[s].at(i) & inside;
                    const T *from = x + (n + s) * in + i;
                    for (int j = 0; j < Strip<T>::V; ++j) {
                        const int at = j * Strip<T>::W;
                        const Reals<T> have = edge ? chosen<T, true>(from, inside, at) : Vector<T>::load(from + at);
                        sum.v[j] += chosen<T>(have * g[s * out], bits, at);
                    }
                }
            });
        }
    });
    for (T *p = begin; p < end; ++p) *p *= (T)c.scale;
}

template <class Run>
void by_type(DType dtype, Run run) {
    if (dtype == DType::float32) run(0.0f);
    if (dtype == DType::float64) run(0.0);
}

}  // namespace

void connect(DType dtype, const void *x, const void *weight, void *y, const Connect &c, Range samples, Range rows) {
    by_type(dtype, [=, &c](auto zero) {
        using T = decltype(zero);
        forward(static_cast<const T *>(x), static_cast<const T *>(weight), static_cast<T *>(y), c, samples, rows);
    });
}

void connect_by_x(DType dtype, const void *grad, const void *weight, void *grad_x, const Connect &c, Range samples) {
    by_type(dtype, [=, &c](auto zero) {
        using T = decltype(zero);
        by_x(static_cast<const T *>(grad), static_cast<const T *>(weight), static_cast<T *>(grad_x), c, samples);
    });
}

void connect_by_weight(DType dtype, const void *grad, const void *x, void *grad_weight, const Connect &c, int64_t samples, Range rows) {
    by_type(dtype, [=, &c](auto zero) {
        using T = decltype(zero);
        by_weight(static_cast<const T *>(grad), static_cast<const T *>(x), static_cast<T *>(grad_weight), c, samples, rows);
    });
}

}  // namespace THINNED_LEVEL
}  // namespace thinned
