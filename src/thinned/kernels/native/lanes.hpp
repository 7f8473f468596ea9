// Bernoulli bits by planes. Included by every kernel, which is compiled once for every level of the
// instruction set, with THINNED_LEVEL as its namespace; the same results at each.
//
// A group is 128 units: the 128 output bits of one Philox4x32-10 call are one bit-plane of their 32-bit
// numbers U. A 64-bit lane carries one group, so a vector of L lanes decides 128 L units at once.
// Comparing U < limit from the most significant plane on, half of the open units are decided by each
// plane: about log2(units) + 1 planes decide them all, and one plane where limit = 2**31 (p = 0.5).

#pragma once
#include "kernel.hpp"
#include "philox.hpp"

#include <cstring>

#if defined(__AVX512F__)
#include <immintrin.h>
#define THINNED_BYTES 64
#elif defined(__AVX2__)
#include <immintrin.h>
#define THINNED_BYTES 32
#elif defined(THINNED_NEON)
#include <arm_neon.h>
#endif

namespace thinned {
namespace THINNED_LEVEL {
namespace {

#ifdef THINNED_BYTES
typedef uint64_t Lanes __attribute__((vector_size(THINNED_BYTES)));
#elif defined(THINNED_NEON)
typedef uint64_t Lanes __attribute__((vector_size(16)));
#else
typedef uint64_t Lanes;
#endif

constexpr int L = sizeof(Lanes) / 8;     // lanes, one group each
#ifdef THINNED_NEON
constexpr int PAIR = 4;                  // two registers of words are in flight: see plane_bits
#else
constexpr int PAIR = 2;                  // vectors in flight: hides the latency of the products
#endif
constexpr int STEP = PAIR * L;           // groups decided together

inline bool any(Lanes a) {
#if defined(__AVX512F__)
    return _mm512_test_epi64_mask((__m512i)a, (__m512i)a) != 0;
#elif defined(__AVX2__)
    return !_mm256_testz_si256((__m256i)a, (__m256i)a);
#elif defined(THINNED_NEON)
    return vmaxvq_u32((uint32x4_t)a) != 0;
#else
    return a != 0;
#endif
}

inline Lanes all(uint64_t a) { return Lanes{} + a; }

inline Lanes ramp(uint64_t first) {
    uint64_t lane[L];
    for (int i = 0; i < L; ++i) lane[i] = first + i;
    Lanes v;
    std::memcpy(&v, lane, sizeof v);
    return v;
}

// The first two rounds, as far as they depend on the group alone. With counter (g, high, plane, 0):
//   round 1:  c0 = hi(M1 plane) ^ high ^ a0    c1 = lo(M1 plane)    c2 = hi(M0 g) ^ b0    c3 = lo(M0 g)
//   round 2:  c0 = hi(M1 c2) ^ c1 ^ a1         c1 = lo(M1 c2)       c2 = hi(M0 c0) ^ c3 ^ b1   c3 = lo(M0 c0)
// c0, c1 of round 1 are numbers, not vectors: so two of ten rounds cost two xors.
struct Group {
    Lanes c0, c1, c2;
    Group(uint64_t first, const Schedule &key) {
        const Lanes p0 = product(ramp(first), all(M0));
        const Lanes p1 = product((p0 >> 32) ^ all(key.b[0]), all(M1));
        c0 = (p1 >> 32) ^ all(key.a[1]);
        c1 = p1;
        c2 = p0 ^ all(key.b[1]);
    }
    Group() = default;
};

struct Bits { Lanes low, high; };  // units 0 ... 63 and 64 ... 127 of every group

#ifdef THINNED_NEON
inline uint32x4_t lower(Lanes a, Lanes b) { return vuzp1q_u32((uint32x4_t)a, (uint32x4_t)b); }

// One plane of STEP groups. The words of four groups lie close together: half as many instructions as in lanes.
inline void plane_bits(Bits out[PAIR], const Group group[PAIR], uint64_t high, unsigned plane, const Schedule &key) {
    const uint64_t p1 = M1 * plane, p0 = M0 * (((p1 >> 32) ^ high ^ key.a[0]) & LOW);
    constexpr int FOURS = PAIR / 2;
    uint32x4_t c0[FOURS], c1[FOURS], c2[FOURS], c3[FOURS];
    for (int v = 0; v < FOURS; ++v) {
        const Group &a = group[2 * v], &b = group[2 * v + 1];
        c0[v] = lower(a.c0, b.c0) ^ vdupq_n_u32((uint32_t)p1);
        c1[v] = lower(a.c1, b.c1);
        c2[v] = lower(a.c2, b.c2) ^ vdupq_n_u32((uint32_t)(p0 >> 32));
        c3[v] = vdupq_n_u32((uint32_t)p0);
    }
    for (int r = 2; r < 10; ++r) {
        const uint32x4_t a = vdupq_n_u32(key.a[r]), b = vdupq_n_u32(key.b[r]);
        for (int v = 0; v < FOURS; ++v) philox_round(c0[v], c1[v], c2[v], c3[v], a, b);
    }
    for (int v = 0; v < FOURS; ++v) {
        out[2 * v] = {(Lanes)vzip1q_u32(c0[v], c1[v]), (Lanes)vzip1q_u32(c2[v], c3[v])};
        out[2 * v + 1] = {(Lanes)vzip2q_u32(c0[v], c1[v]), (Lanes)vzip2q_u32(c2[v], c3[v])};
    }
}
#else
// One plane of STEP groups. Only the lower halves of c0 ... c3 mean anything until the end.
inline void plane_bits(Bits out[PAIR], const Group group[PAIR], uint64_t high, unsigned plane, const Schedule &key) {
    const uint64_t p1 = M1 * plane, p0 = M0 * (((p1 >> 32) ^ high ^ key.a[0]) & LOW);
    Lanes c0[PAIR], c1[PAIR], c2[PAIR], c3[PAIR];
    for (int v = 0; v < PAIR; ++v) {
        c0[v] = group[v].c0 ^ all(p1 & LOW);
        c1[v] = group[v].c1;
        c2[v] = group[v].c2 ^ all(p0 >> 32);
        c3[v] = all(p0 & LOW);
    }
    for (int r = 2; r < 10; ++r) {
        const Lanes a = all(key.a[r]), b = all(key.b[r]);
        for (int v = 0; v < PAIR; ++v) philox_round(c0[v], c1[v], c2[v], c3[v], a, b);
    }
    for (int v = 0; v < PAIR; ++v) {
        out[v].low = (c0[v] & all(LOW)) | (c1[v] << 32);
        out[v].high = (c2[v] & all(LOW)) | (c3[v] << 32);
    }
}
#endif

// Kept bits of STEP groups from `first` on (their upper counter word is the same), two words a group.
inline void decide(uint64_t *out, uint64_t first, Draw draw, const Schedule &key) {
    Group group[PAIR];
    Bits below[PAIR], open[PAIR], bits[PAIR];
    for (int v = 0; v < PAIR; ++v) {
        group[v] = Group((first & LOW) + v * L, key);
        below[v] = {all(0), all(0)};
        open[v] = {all(~0ull), all(~0ull)};
    }
    uint32_t rest = (uint32_t)draw.limit;
    for (unsigned plane = 0; rest != 0; ++plane, rest <<= 1) {
        plane_bits(bits, group, first >> 32, plane, key);
        Lanes left = all(0);
        for (int v = 0; v < PAIR; ++v) {
            if (rest >> 31) {
                below[v].low |= open[v].low & ~bits[v].low;
                below[v].high |= open[v].high & ~bits[v].high;
                open[v].low &= bits[v].low;
                open[v].high &= bits[v].high;
            } else {
                open[v].low &= ~bits[v].low;
                open[v].high &= ~bits[v].high;
            }
            left |= open[v].low | open[v].high;
        }
        if (!any(left)) break;
    }
    for (int v = 0; v < PAIR; ++v) {
        uint64_t low[L], high[L];
        std::memcpy(low, &below[v].low, sizeof low);
        std::memcpy(high, &below[v].high, sizeof high);
        for (int i = 0; i < L; ++i) {
            out[2 * (v * L + i)] = low[i];
            out[2 * (v * L + i) + 1] = high[i];
        }
    }
}

// Calls use(i, bits, m) for m <= 64 units at a time: bit j is 1 where unit start + i + j is kept. Only the first
// and the last call have m < 64: after the first, start + i is a multiple of 64.
template <class Use>
inline void for_each_word(uint64_t start, int64_t n, Draw draw, Use use) {
    const Schedule key(draw.k0, draw.k1);
    uint64_t word[2 * STEP], group = start / 128;
    std::memset(word, 255, sizeof word);
    for (int64_t i = -(int64_t)(start % 128); i < n;) {
        const uint64_t same = (LOW - (group & LOW)) + 1;  // groups until the upper counter word moves on
        const int groups = same < STEP ? (int)same : STEP;
        if (draw.limit <= LOW) decide(word, group, draw, key);
        group += groups;
        if (i >= 0 && groups == STEP && i + 128 * STEP <= n) {  // all words are whole: a short loop
            for (int k = 0; k < 2 * STEP; ++k, i += 64) use(i, word[k], 64);
            continue;
        }
        for (int k = 0; k < 2 * groups; ++k, i += 64) {
            if (i >= 0 && i + 64 <= n) {
                use(i, word[k], 64);
                continue;
            }
            const int begin = i < 0 ? (int)-i : 0, end = n - i < 64 ? (int)(n - i) : 64;
            if (begin < end) use(i + begin, word[k] >> begin, end - begin);
        }
    }
}

// Words for `n` packed bits that begin anywhere in a group.
constexpr int64_t packed_words(int64_t n) { return 2 * ((n + 254) / 128 + STEP); }

// The kept bits of units start ... start + n - 1, packed; the first is bit start % 128 of out[0 ... packed_words(n)).
inline void pack(uint64_t *out, uint64_t start, int64_t n, Draw draw) {
    if (draw.limit > LOW) {
        std::memset(out, 255, packed_words(n) * sizeof *out);
        return;
    }
    const Schedule key(draw.k0, draw.k1);
    const uint64_t first = start / 128;
    const int64_t groups = (start % 128 + n + 127) / 128;
    for (int64_t g = 0; g < groups;) {
        decide(out + 2 * g, first + g, draw, key);
        const uint64_t same = (LOW - ((first + g) & LOW)) + 1;  // groups until the upper counter word moves on
        g += same < STEP ? same : STEP;
    }
}

// 64 packed bits from bit `at` on; reads a word more.
inline uint64_t word_at(const uint64_t *words, uint64_t at) {
    const int shift = at % 64;
    return words[at / 64] >> shift | words[at / 64 + 1] << 1 << (63 - shift);
}

}  // namespace
}  // namespace THINNED_LEVEL
}  // namespace thinned
