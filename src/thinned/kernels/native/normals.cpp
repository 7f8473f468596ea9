// Standard normal numbers, and Gaussian dropout by them. In double precision, with operations that are rounded
// alike everywhere: the same bits at each level, a few units in the last place from `thinned.key.normals`.

#include "halves.hpp"

#include <cmath>

namespace thinned {
namespace THINNED_LEVEL {
namespace {

constexpr int BLOCKS = 32, PAIRS = 2 * BLOCKS;  // Philox calls made together, four words each; their pairs of numbers

inline double double_of(uint64_t bits) {
    double a;
    std::memcpy(&a, &bits, sizeof a);
    return a;
}

inline uint64_t bits_of(double a) {
    uint64_t bits;
    std::memcpy(&bits, &a, sizeof bits);
    return bits;
}

// Of an integer below 2**52: put into the mantissa of 2**52.
inline double real(uint64_t a) { return double_of(a | 0x4330000000000000u) - 4503599627370496.0; }

// The steps from words to numbers are loops of their own over PAIRS pairs: short enough that the processor has many
// iterations under way, where one loop would wait for its chains of products.

// ln u for 0 < u <= 1 is k ln 2 + 2 artanh s, where u = 2**k f, sqrt(1/2) <= f < sqrt(2), s = (f - 1)/(f + 1).
inline void reduce(double u, double &k, double &s) {
    constexpr uint64_t ONE = 0x3FF0000000000000u, ROOT = 0x3FE6A09E667F3BCDu, EXPONENT = 0xFFF0000000000000u;
    const uint64_t shifted = bits_of(u) - ROOT + ONE;  // its exponent is k
    const double f = double_of(bits_of(u) - (shifted & EXPONENT) + ONE);
    k = real(shifted >> 52) - 1023.0;
    s = (f - 1.0) / (f + 1.0);
}

// sqrt(-2 ln u); s**2 < 0.0295 leaves less than 2**-56 after the power s**20.
inline double radius_of(double k, double s) {
    const double q = s * s;
    double tail = 1.0 / 21;
    tail = tail * q + 1.0 / 19;
    tail = tail * q + 1.0 / 17;
    tail = tail * q + 1.0 / 15;
    tail = tail * q + 1.0 / 13;
    tail = tail * q + 1.0 / 11;
    tail = tail * q + 1.0 / 9;
    tail = tail * q + 1.0 / 7;
    tail = tail * q + 1.0 / 5;
    tail = tail * q + 1.0 / 3;
    return std::sqrt(-2.0 * (k * 0.69314718055994530942 + 2.0 * (s + s * (q * tail))));
}

// The radius times cosine and sine of 2 pi angle/2**32. The angle is reduced to [-pi/4, pi/4] on the integer, exactly;
// there both are their Taylor series.
inline void turn(double radius, uint64_t angle, double &z, double &other) {
    const uint64_t turned = angle + (1u << 29), quarters = turned >> 30;
    const double a = (real(angle) - real(turned & ~uint64_t((1u << 30) - 1))) * (6.28318530717958647693 * 0x1p-32), q = a * a;
    double sine = -1.0 / 1307674368000.0;
    sine = sine * q + 1.0 / 6227020800.0;
    sine = sine * q - 1.0 / 39916800.0;
    sine = sine * q + 1.0 / 362880.0;
    sine = sine * q - 1.0 / 5040.0;
    sine = sine * q + 1.0 / 120.0;
    sine = sine * q - 1.0 / 6.0;
    sine = a + a * (q * sine);
    double cosine = 1.0 / 20922789888000.0;
    cosine = cosine * q - 1.0 / 87178291200.0;
    cosine = cosine * q + 1.0 / 479001600.0;
    cosine = cosine * q - 1.0 / 3628800.0;
    cosine = cosine * q + 1.0 / 40320.0;
    cosine = cosine * q - 1.0 / 720.0;
    cosine = cosine * q + 1.0 / 24.0;
    cosine = 1.0 + (q * (q * cosine) - 0.5 * q);
    const uint64_t swap = 0 - (quarters & 1), s = bits_of(sine), c = bits_of(cosine);
    z = radius * double_of(((s & swap) | (c & ~swap)) ^ ((quarters + 1) & 2) << 62);
    other = radius * double_of(((c & swap) | (s & ~swap)) ^ (quarters & 2) << 62);
}

// Words 4 block ... 4 (block + BLOCKS) - 1 as pairs (w, w').
inline void words(uint64_t *w, uint64_t *angle, uint64_t block, const Schedule &key) {
    for (int i = 0; i < BLOCKS; i += L) {
        const Lanes counter = ramp(block + i);
        Lanes c0 = counter & all(LOW), c1 = counter >> 32, c2 = all(0), c3 = all(2);
        for (int r = 0; r < 10; ++r) philox_round(c0, c1, c2, c3, all(key.a[r]), all(key.b[r]));
        c0 &= all(LOW), c1 &= all(LOW), c2 &= all(LOW), c3 &= all(LOW);
        std::memcpy(w + i, &c0, sizeof c0);
        std::memcpy(angle + i, &c1, sizeof c1);
        std::memcpy(w + BLOCKS + i, &c2, sizeof c2);
        std::memcpy(angle + BLOCKS + i, &c3, sizeof c3);
    }
}

// Calls use(i, z, m) for m numbers at a time, those of start + i ... start + i + m - 1.
template <class Use>
inline void for_each_normal(uint64_t start, int64_t n, uint32_t k0, uint32_t k1, Use use) {
    const Schedule key(k0, k1);
    uint64_t w[PAIRS], angle[PAIRS];
    double k[PAIRS], s[PAIRS], radius[PAIRS], z[2][PAIRS], numbers[2 * PAIRS];
    uint64_t block = start / 4;
    for (int64_t i = -(int64_t)(start % 4); i < n; i += 2 * PAIRS, block += BLOCKS) {
        words(w, angle, block, key);
        for (int j = 0; j < PAIRS; ++j) reduce((real(w[j]) + 1.0) * 0x1p-32, k[j], s[j]);
        for (int j = 0; j < PAIRS; ++j) radius[j] = radius_of(k[j], s[j]);
        for (int j = 0; j < PAIRS; ++j) turn(radius[j], angle[j], z[0][j], z[1][j]);
        for (int j = 0; j < BLOCKS; ++j)
            for (int word = 0; word < 4; ++word) numbers[4 * j + word] = z[word % 2][word / 2 * BLOCKS + j];
        const int begin = i < 0 ? (int)-i : 0, end = n - i < 2 * PAIRS ? (int)(n - i) : 2 * PAIRS;
        use(i + begin, numbers + begin, end - begin);
    }
}

}  // namespace

void normals(double *out, uint64_t start, int64_t n, uint32_t k0, uint32_t k1) {
    for_each_normal(start, n, k0, k1, [=](int64_t i, const double *z, int m) { std::memcpy(out + i, z, m * sizeof *z); });
}

void noise(DType dtype, const void *x, void *out, int64_t first, int64_t n, const Noise &how) {
    by_type(dtype, [=, &how](auto zero) {
        using S = decltype(zero);
        using T = Wide<S>;
        const S *from = static_cast<const S *>(x);
        S *to = static_cast<S *>(out);
        for_each_normal(how.start + first, n, how.k0, how.k1, [=, &how](int64_t i, const double *z, int m) {
            if constexpr (std::is_same_v<S, T>) {
                for (int j = 0; j < m; ++j) to[i + j] = from[i + j] * (T)(1.0 + how.deviation * z[j]);
            } else {
                T wide[2 * PAIRS];
                widen(from + i, wide, m);
                for (int j = 0; j < m; ++j) wide[j] *= (T)(1.0 + how.deviation * z[j]);
                narrow(wide, to + i, m);
            }
        });
    });
}

}  // namespace THINNED_LEVEL
}  // namespace thinned
