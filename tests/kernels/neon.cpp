// The NEON level beside the plain one, bit for bit: masks, dropout by elements and by rows, DropBlock, normal numbers.
// test_neon.py compiles it for ARM and runs it. The first line has a mask that Python knows.
#include "kernel.hpp"

#include <cstdio>
#include <cstring>
#include <vector>

using namespace thinned;

namespace {

using Bytes = std::vector<unsigned char>;
int cases = 0, wrong = 0;

void same(const Bytes &a, const Bytes &b, const char *what, long long n, unsigned long long limit, unsigned long long start) {
    ++cases;
    if (a == b) return;
    ++wrong;
    std::printf("%s: n = %lld, limit = %llu, start = %llu\n", what, n, limit, start);
}

// Bits of all kinds of numbers: denormal ones, infinities and NaN among them.
Bytes numbers(int64_t bytes) {
    Bytes x(bytes);
    uint64_t state = 2014;
    for (auto &byte : x) byte = (state = state * 6364136223846793005u + 1442695040888963407u) >> 56;
    return x;
}

const uint64_t LIMITS[] = {0, 1, 1u << 31, (1u << 31) + 1, 3865470566u, 0xAAAAAAAAu, 0xFFFFFFFFu, 1ull << 32};
const uint64_t STARTS[] = {0, 5, 127, (128ull << 32) - 700, ~0ull / 2};  // the fourth crosses an upper counter word
const int64_t SIZES[] = {0, 1, 63, 64, 65, 128, 1000, 1024, 1025, 5000};
const int BYTES[] = {4, 8, 2, 2};  // by DType

void masks() {
    for (const uint64_t limit : LIMITS)
        for (const uint64_t start : STARTS)
            for (const int64_t n : SIZES) {
                Bytes a(n), b(n);
                const Draw draw{17, 3000000019u, limit};
                plain::mask(a.data(), start, n, draw);
                neon::mask(b.data(), start, n, draw);
                same(a, b, "mask", n, limit, start);
            }
}

void drops(int type, int64_t inner, double shift) {
    for (const uint64_t limit : LIMITS)
        for (const int64_t n : SIZES) {
            const Drop how{{1, 2, limit}, 77, inner, 1.25, shift, shift / 3};
            const Bytes x = numbers(n * BYTES[type]);
            Bytes a(x.size()), b(x.size());
            plain::drop(DType(type), x.data(), a.data(), 3, n, how, false);
            neon::drop(DType(type), x.data(), b.data(), 3, n, how, false);
            same(a, b, "drop", n, limit, 77);
        }
}

// Every float16, and multiples of them that are rounded.
void halves() {
    const Drop keep{{1, 2, 1ull << 32}, 0, 1, 1.0, 0.0, 0.0};
    std::vector<uint16_t> x(1 << 16), a(x), b(x);
    for (int i = 0; i < 1 << 16; ++i) x[i] = (uint16_t)i;
    plain::drop(DType::float16, x.data(), a.data(), 0, x.size(), keep, false);
    neon::drop(DType::float16, x.data(), b.data(), 0, x.size(), keep, false);
    ++cases, wrong += a != b;
    for (double scale = 1.0; scale > 1e-9; scale *= 0.7317) {
        const Drop scaled{{1, 2, 1ull << 32}, 0, 1, scale, 0.0, 0.0};
        plain::drop(DType::float16, x.data(), a.data(), 0, x.size(), scaled, false);
        neon::drop(DType::float16, x.data(), b.data(), 0, x.size(), scaled, false);
        ++cases, wrong += a != b;
    }
}

void blocks(int type) {
    for (const uint64_t limit : LIMITS) {
        const Blocks how{3, 3, {1, 9, 13}, {1, 2, 3}, 40, {5, 6, limit}};
        const Bytes x = numbers(4 * 3 * 9 * 13 * BYTES[type]);
        Bytes a(x.size()), b(x.size());
        plain::drop_block(DType(type), x.data(), a.data(), how, {0, 4});
        neon::drop_block(DType(type), x.data(), b.data(), how, {0, 4});
        same(a, b, "drop_block", x.size(), limit, 40);
    }
}

void normals() {
    for (const uint64_t start : STARTS)
        for (const int64_t n : SIZES) {
            Bytes a(8 * n), b(8 * n);
            plain::normals(reinterpret_cast<double *>(a.data()), start, n, 8, 9);
            neon::normals(reinterpret_cast<double *>(b.data()), start, n, 8, 9);
            same(a, b, "normals", n, 0, start);
        }
}

void known() {
    Bytes kept(1000);
    neon::mask(kept.data(), 0, 1000, {17, 3000000019u, 3865470566u});  // p = 0.1
    for (const unsigned char one : kept) std::putchar('0' + one);
    std::putchar('\n');
}

}  // namespace

int main() {
    known();
    masks();
    for (int type = 0; type < 4; ++type)
        for (const double shift : {0.0, 0.75}) drops(type, 1, shift), drops(type, 7, shift);
    halves();
    for (int type = 0; type < 4; ++type) blocks(type);
    normals();
    std::printf("%d cases, %d differ\n", cases, wrong);
    return wrong != 0;
}
