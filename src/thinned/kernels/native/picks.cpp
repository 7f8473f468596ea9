// Which units survive (contract 1 of docs/design.md): exactly k of n, and the panels that groups of rows keep.

#include "picks.hpp"

#include <algorithm>
#include <cstdint>
#include <vector>

#include "philox.hpp"

namespace nb = nanobind;
using namespace thinned;

namespace {

using Address = uintptr_t;

// Four words of Philox4x32-10 at the counter (c0, c1, 0, domain): 1 folds in, 2 draws words.
inline void words(uint64_t c[4], uint64_t counter, uint64_t domain, const Schedule &key) {
    c[0] = counter & LOW, c[1] = counter >> 32, c[2] = 0, c[3] = domain;
    for (int r = 0; r < 10; ++r) philox_round(c[0], c[1], c[2], c[3], (uint64_t)key.a[r], (uint64_t)key.b[r]);
    for (int i = 0; i < 4; ++i) c[i] &= LOW;
}

// Words 0 ... n - 1 < 2**32, each in the upper half of a number whose lower half is its index.
std::vector<uint64_t> draw(int64_t n, const Schedule &key) {
    std::vector<uint64_t> drawn(n);
    for (int64_t i = 0; i < n; i += 4) {
        uint64_t four[4];
        words(four, (uint64_t)i / 4, 2, key);
        for (int64_t j = i; j < std::min(i + 4, n); ++j) drawn[j] = four[j - i] << 32 | (uint64_t)j;
    }
    return drawn;
}

// The k of n < 2**32 indices with the smallest (word, index), ascending.
void choose(uint32_t k0, uint32_t k1, int64_t n, int64_t k, int64_t *out) {
    if (k == 0) return;
    const std::vector<uint64_t> drawn = draw(n, {k0, k1});
    std::vector<uint64_t> order(drawn);
    std::nth_element(order.begin(), order.begin() + (k - 1), order.end());
    const uint64_t last = order[k - 1];
    for (int64_t j = 0; j < n; ++j)
        if (drawn[j] <= last) *out++ = j;
}

// Ascending. The upper halves are uniform: as many buckets of them as numbers put each near its place, and
// the rest is a step or two.
void sort(std::vector<uint64_t> &numbers) {
    int bits = 1;
    while (bits < 20 && (std::size_t)1 << bits < numbers.size()) ++bits;
    std::vector<uint32_t> ends(((std::size_t)1 << bits) + 1);
    for (uint64_t one : numbers) ++ends[(one >> (64 - bits)) + 1];
    for (std::size_t b = 1; b < ends.size(); ++b) ends[b] += ends[b - 1];
    std::vector<uint64_t> near(numbers.size());
    for (uint64_t one : numbers) near[ends[one >> (64 - bits)]++] = one;
    for (std::size_t i = 1; i < near.size(); ++i) {
        const uint64_t one = near[i];
        std::size_t j = i;
        for (; j > 0 && near[j - 1] > one; --j) near[j] = near[j - 1];
        near[j] = one;
    }
    numbers.swap(near);
}

// The order of n units, and which of its panels each group keeps: thinned.key.pick. Both are at most 2**30.
void pick(uint32_t k0, uint32_t k1, int64_t n, int64_t panels, uint64_t limit, int64_t groups, int64_t *order, bool *kept) {
    const Schedule key(k0, k1);
    std::vector<uint64_t> drawn = draw(n, key);
    sort(drawn);
    for (int64_t i = 0; i < n; ++i) order[i] = (int64_t)(drawn[i] & LOW);
    const uint64_t around = (uint64_t)panels << 32, window = limit * (uint64_t)panels;
    for (int64_t g = 0; g < groups; g += 2) {
        uint64_t four[4];
        words(four, (uint64_t)g / 2, 1, key);
        const Schedule pair((uint32_t)four[0], (uint32_t)four[1]);
        std::vector<uint64_t> ranked = draw(panels + 1, pair);
        uint64_t at = (around - (ranked.back() >> 32)) % around;  // on the circle, the panel at rank 0 from U on
        ranked.pop_back();
        sort(ranked);
        for (uint64_t one : ranked) {
            bool *first = kept + g * panels + (one & LOW);
            const uint64_t opposite = at < around / 2 ? at + around / 2 : at - around / 2;
            first[0] = at < window;
            if (g + 1 < groups) first[panels] = opposite < window;
            if ((at += (uint64_t)1 << 32) >= around) at -= around;
        }
    }
}

}  // namespace

void bind_picks(nb::module_ &m) {
    m.def("choose", [](uint32_t k0, uint32_t k1, int64_t n, int64_t k, Address out) { choose(k0, k1, n, k, (int64_t *)out); });
    m.def("pick", [](uint32_t k0, uint32_t k1, int64_t n, int64_t panels, uint64_t limit, int64_t groups, Address order, Address kept) {
        pick(k0, k1, n, panels, limit, groups, (int64_t *)order, (bool *)kept);
    });
}
