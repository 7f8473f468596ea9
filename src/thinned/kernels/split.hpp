// Threads for one call.
#pragma once
#include <algorithm>
#include <cstdint>
#include <system_error>
#include <thread>
#include <vector>

namespace thinned {

// Runs work(begin, end) over [0, n) in equal parts, each a multiple of `align`. Threads are started for the
// call and joined, so nothing outlives it and a fork is safe; below `grain` a thread costs more than it saves.
template <class Work>
void split(int64_t n, int64_t grain, int64_t align, int threads, Work work) {
    const int64_t parts = std::clamp<int64_t>(n / std::max<int64_t>(grain, 1), 1, std::max(threads, 1));
    const int64_t size = std::max<int64_t>(((n + parts - 1) / parts + align - 1) / align * align, 1);
    std::vector<std::thread> crew;
    for (int64_t begin = size; begin < n; begin += size) {
        const int64_t end = std::min(begin + size, n);
        try {
            crew.emplace_back([=] { work(begin, end); });
        } catch (const std::system_error &) {  // no thread to be had: do it here
            work(begin, end);
        }
    }
    work(0, std::min(size, n));
    for (std::thread &thread : crew) thread.join();
}

}  // namespace thinned
