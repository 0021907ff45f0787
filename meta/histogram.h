/* How often a value was how large, by powers of two. Adding is two atomic additions, so it is always on; who reads sees
 * each number as it was a moment ago. */
#pragma once

#include <stdatomic.h>
#include <stdint.h>

#define HISTOGRAM_BUCKETS 42

struct histogram {
	atomic_ullong buckets[HISTOGRAM_BUCKETS]; /* n: values above 2^(n-1), up to 2^n; the last one: and whatever is larger */
	atomic_ullong sum;
};

static inline void histogram_add(struct histogram *h, int64_t value)
{
	unsigned n = value <= 1 ? 0 : 64 - (unsigned)__builtin_clzll((unsigned long long)value - 1);

	n = n < HISTOGRAM_BUCKETS ? n : HISTOGRAM_BUCKETS - 1;
	atomic_fetch_add_explicit(&h->buckets[n], 1, memory_order_relaxed);
	atomic_fetch_add_explicit(&h->sum, value > 0 ? (unsigned long long)value : 0, memory_order_relaxed);
}
