// Thinned networks of one perceptron, each with survivors of its own, run on the same rows.
//
// Rows lie in panels, which is as many rows as two vectors have lanes: [panel][unit][row of the panel]. So a survivor
// is a cache line or two, and nothing is copied but the survivors' weights, once a network. A tile of HIGH units and a
// panel's rows stays in registers while the survivors that it reads go by; all else is blocked so that these are in the
// first cache and the weights stream from the next (Goto and van de Geijn 2008, doi:10.1145/1356052.1356053).
// Each sum begins with the bias and has one order, that of the survivors: the same on any number of threads.

#include "select.hpp"
#include "tiles.hpp"

#include <algorithm>

namespace thinned {
namespace THINNED_LEVEL {

void mask(uint8_t *out, uint64_t start, int64_t n, Draw draw);  // of elements.cpp

namespace {

constexpr int HIGH = sizeof(Reals<float>) == 64 ? 12 : 6;  // with two vectors each: three quarters of the registers
constexpr int64_t TALL = 516, DEEP = 512;  // units, and survivors that they read, of a block of weights: 1 MB

template <class T>
constexpr int64_t WIDE = 2 * Vector<T>::lanes;  // rows of a panel

// c[i][row] = start[i] + the sum over k of a[k][i] b[k][row], or c[i][row] + it where there is no start.
template <class T>
void tile(const T *a, const T *b, int64_t depth, const T *start, bool clip, T *c) {
    using V = Vector<T>;
    Reals<T> sum[HIGH][2];
    UNROLL for (int i = 0; i < HIGH; ++i) {
        UNROLL for (int j = 0; j < 2; ++j) sum[i][j] = start ? Reals<T>{} + start[i] : V::load(c + i * WIDE<T> + j * V::lanes);
    }
    for (int64_t k = 0; k < depth; ++k, a += HIGH, b += WIDE<T>) {
        const Reals<T> x[2] = {V::load(b), V::load(b + V::lanes)};
        UNROLL for (int i = 0; i < HIGH; ++i) {
            UNROLL for (int j = 0; j < 2; ++j) sum[i][j] += x[j] * a[i];
        }
    }
    UNROLL for (int i = 0; i < HIGH; ++i) {
        UNROLL for (int j = 0; j < 2; ++j) {
            if (clip) sum[i][j] = sum[i][j] < Reals<T>{} ? Reals<T>{} : sum[i][j];  // NaN stays
            V::store(c + i * WIDE<T> + j * V::lanes, sum[i][j]);
        }
    }
}

int64_t padded(int64_t units) { return (units + HIGH - 1) / HIGH * HIGH; }

// Rows in panels: zeros where the last one has too many, and where their bits, one a byte, are 0.
template <class T>
void lay_out(const T *x, const uint8_t *bits, int64_t rows, int64_t units, T *out) {
    constexpr int64_t SOME = 128;  // units: so many of a panel stay in the first cache
    for (int64_t p = 0; p < rows; p += WIDE<T>, x += WIDE<T> * units, bits += bits ? WIDE<T> * units : 0, out += WIDE<T> * units)
        for (int64_t first = 0; first < units; first += SOME)
            for (int64_t row = 0; row < WIDE<T>; ++row)
                for (int64_t u = first; u < std::min(first + SOME, units); ++u)
                    out[u * WIDE<T> + row] = p + row < rows && (!bits || bits[row * units + u]) ? x[row * units + u] : T(0);
}

struct Units {  // of a layer, in one network
    Units(int64_t all, const int64_t *list) : n(list ? *list : all), index(list ? list + 1 : nullptr) {}
    int64_t of(int64_t i) const { return index ? index[i] : i; }
    int64_t n;
    const int64_t *index;  // null: all
};

// What one thread has at hand.
template <class T>
class Runner {
  public:
    explicit Runner(const Networks &all)
        : all_(all), weights_(TALL * DEEP), strip_(WIDE<T> * DEEP), start_(widest(all)),
          masked_(all.words ? all.some * all.units * WIDE<T> : 0), bits_(all.words ? all.some * all.units * WIDE<T> : 0),
          y_{Room<T>(all.some * widest(all) * WIDE<T>), Room<T>(all.some * widest(all) * WIDE<T>)} {}

    // Network `which`, for the rows of some panels.
    void run(int64_t which, Range panels) {
        const T *x = static_cast<const T *>(all_.x) + panels.begin * all_.units * WIDE<T>;
        if (all_.words) x = mask_of(which, x, panels.begin * WIDE<T>, std::min(panels.end * WIDE<T>, all_.rows));
        int64_t stride = all_.units * WIDE<T>;
        for (int64_t l = 0; l < all_.layers; ++l) {
            const Dense &d = all_.dense[l];
            const int64_t *lists = all_.lists + which * all_.lists_each;
            const Units in{d.in, d.list_in < 0 ? nullptr : lists + d.list_in}, out{d.out, d.list_out < 0 ? nullptr : lists + d.list_out};
            layer(d, in, out, l == 0, x, stride, panels.end - panels.begin, y_[l % 2]);
            x = y_[l % 2], stride = padded(out.n) * WIDE<T>;
        }
        write(x, stride, which, panels);
    }

  private:
    static int64_t widest(const Networks &all) {
        int64_t most = 0;
        for (int64_t l = 0; l < all.layers; ++l) most = std::max(most, padded(all.dense[l].out));
        return most;
    }

    // The panels of some rows, with that network's mask.
    const T *mask_of(int64_t which, const T *x, int64_t begin, int64_t end) {
        mask(bits_, all_.start + begin * all_.units, (end - begin) * all_.units, {all_.words[2 * which], all_.words[2 * which + 1], all_.limit});
        lay_out<T>(x, bits_, end - begin, all_.units, masked_);
        return masked_;
    }

    // The first layer is given all units, and takes those that it reads; others are given no more than these.
    void layer(const Dense &d, const Units &in, const Units &out, bool first, const T *x, int64_t x_stride, int64_t panels, T *y) {
        const int64_t height = padded(out.n), y_stride = height * WIDE<T>;
        for (int64_t o = 0; o < height; ++o) start_[o] = d.bias && o < out.n ? static_cast<const T *>(d.bias)[out.of(o)] : T(0);
        int64_t k = 0;
        do {  // also where nothing is read: then the bias is left
            const int64_t deep = std::min(DEEP, in.n - k);
            for (int64_t m = 0; m < height; m += TALL) {
                const int64_t tall = std::min(TALL, height - m);
                pack(d, in, out, m, tall, k, deep);
                for (int64_t p = 0; p < panels; ++p) {
                    const T *b = x + p * x_stride;
                    if (first && in.index) {
                        for (int64_t i = 0; i < deep; ++i) std::memcpy(strip_ + i * WIDE<T>, b + in.of(k + i) * WIDE<T>, WIDE<T> * sizeof(T));
                        b = strip_;
                    } else {
                        b += k * WIDE<T>;
                    }
                    for (int64_t i = 0; i < tall; i += HIGH)
                        tile(weights_ + i * deep, b, deep, k == 0 ? start_ + m + i : nullptr, d.clip && k + deep == in.n, y + p * y_stride + (m + i) * WIDE<T>);
                }
            }
        } while ((k += DEEP) < in.n);
    }

    // The weights of a block as tiles read them, times d.scale; zeros for units that are not there.
    void pack(const Dense &d, const Units &in, const Units &out, int64_t m, int64_t tall, int64_t k, int64_t deep) {
        const T scale = T(d.scale);
        for (int64_t i = 0; i < tall; ++i) {
            T *to = weights_ + i / HIGH * HIGH * deep + i % HIGH;
            if (m + i >= out.n) {
                for (int64_t j = 0; j < deep; ++j) to[j * HIGH] = T(0);
                continue;
            }
            const T *from = static_cast<const T *>(d.weight) + out.of(m + i) * d.by_out;
            for (int64_t j = 0; j < deep; ++j) to[j * HIGH] = from[in.of(k + j) * d.by_in] * scale;
        }
    }

    // The results, row by row.
    void write(const T *y, int64_t stride, int64_t which, Range panels) {
        const int64_t units = all_.dense[all_.layers - 1].out;
        T *out = static_cast<T *>(all_.out) + which * all_.rows * units;
        for (int64_t p = panels.begin; p < panels.end; ++p, y += stride)
            for (int64_t row = p * WIDE<T>; row < std::min((p + 1) * WIDE<T>, all_.rows); ++row)
                for (int64_t o = 0; o < units; ++o) out[row * units + o] = y[o * WIDE<T> + row % WIDE<T>];
    }

    const Networks &all_;
    const Room<T> weights_, strip_, start_, masked_;
    const Room<uint8_t> bits_;
    const Room<T> y_[2];
};

template <class T>
void run(const Networks &all, Range items) {
    Runner<T> runner(all);
    const int64_t panels = (all.rows + WIDE<T> - 1) / WIDE<T>, parts = (panels + all.some - 1) / all.some;
    for (int64_t i = items.begin; i < items.end; ++i)
        runner.run(i / parts, {i % parts * all.some, std::min(i % parts * all.some + all.some, panels)});
}

}  // namespace

int64_t panel(DType dtype) { return dtype == DType::float32 ? WIDE<float> : WIDE<double>; }

void lay_out(DType dtype, const void *x, int64_t rows, int64_t units, void *out) {
    if (dtype == DType::float32) lay_out(static_cast<const float *>(x), nullptr, rows, units, static_cast<float *>(out));
    if (dtype == DType::float64) lay_out(static_cast<const double *>(x), nullptr, rows, units, static_cast<double *>(out));
}

void networks(DType dtype, const Networks &all, Range items) {
    if (dtype == DType::float32) run<float>(all, items);
    if (dtype == DType::float64) run<double>(all, items);
}

}  // namespace THINNED_LEVEL
}  // namespace thinned
