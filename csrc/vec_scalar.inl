// Vector type of the portable unit: 4 lanes of plain C++ (a compiler is free to make SSE2 of it).
// The names are explained in vec_avx512.inl.

namespace kogata {
namespace {

constexpr int W = 4;
constexpr int kRowTile = 2;
constexpr int kPanels = 1;
constexpr int kGroupRows = 2;
constexpr int kInt8Rows = 2;
constexpr int kPageRows = 2;
constexpr int kPagePanels = 1;
constexpr int kActivationOffset = 128;
constexpr bool kBf16Dot = false;

struct F {
  float v[4];
};
struct I {
  int32_t v[4];
};
struct B {
  int8_t v[16];
};
struct X {
  int8_t v[4];
};

template <class R, class Fn>
inline R lanes(Fn fn) {
  R r;
  for (int i = 0; i < 4; ++i) r.v[i] = fn(i);
  return r;
}

inline F f_set1(float x) { return {{x, x, x, x}}; }
inline F f_zero() { return f_set1(0.0f); }
inline F f_load(const float* p) { return {{p[0], p[1], p[2], p[3]}}; }
inline void f_store(float* p, F a) { __builtin_memcpy(p, a.v, sizeof a.v); }
inline F f_load_n(const float* p, int n) {
  return lanes<F>([&](int i) { return i < n ? p[i] : 0.0f; });
}
inline void f_store_n(float* p, F a, int n) {
  for (int i = 0; i < n; ++i) p[i] = a.v[i];
}
inline F f_add(F a, F b) { return lanes<F>([&](int i) { return a.v[i] + b.v[i]; }); }
inline F f_sub(F a, F b) { return lanes<F>([&](int i) { return a.v[i] - b.v[i]; }); }
inline F f_mul(F a, F b) { return lanes<F>([&](int i) { return a.v[i] * b.v[i]; }); }
inline F f_div(F a, F b) { return lanes<F>([&](int i) { return a.v[i] / b.v[i]; }); }
inline F f_fma(F a, F b, F c) { return lanes<F>([&](int i) { return a.v[i] * b.v[i] + c.v[i]; }); }
inline F f_max(F a, F b) { return lanes<F>([&](int i) { return a.v[i] > b.v[i] ? a.v[i] : b.v[i]; }); }
inline F f_min(F a, F b) { return lanes<F>([&](int i) { return a.v[i] < b.v[i] ? a.v[i] : b.v[i]; }); }
inline float f_sum(F a) { return (a.v[0] + a.v[2]) + (a.v[1] + a.v[3]); }
inline float larger(float a, float b) { return a > b ? a : b; }
inline float smaller(float a, float b) { return a < b ? a : b; }
inline float f_hmax(F a) { return larger(larger(a.v[0], a.v[1]), larger(a.v[2], a.v[3])); }
inline float f_hmin(F a) { return smaller(smaller(a.v[0], a.v[1]), smaller(a.v[2], a.v[3])); }

inline I i_set1(int32_t x) { return {{x, x, x, x}}; }
inline I i_zero() { return i_set1(0); }
inline I i_load(const int32_t* p) { return {{p[0], p[1], p[2], p[3]}}; }
inline I i_add(I a, I b) { return lanes<I>([&](int i) { return a.v[i] + b.v[i]; }); }
inline I i_sub(I a, I b) { return lanes<I>([&](int i) { return a.v[i] - b.v[i]; }); }
inline I i_mul(I a, I b) { return lanes<I>([&](int i) { return a.v[i] * b.v[i]; }); }
inline I i_max(I a, I b) { return lanes<I>([&](int i) { return a.v[i] > b.v[i] ? a.v[i] : b.v[i]; }); }
inline I i_min(I a, I b) { return lanes<I>([&](int i) { return a.v[i] < b.v[i] ? a.v[i] : b.v[i]; }); }
// Half to even for |x| < 2^22, by letting the addition round; larger ones and NaN saturate like cvtps does.
inline int32_t round_one(float x) {
  if (!(x > -4194304.0f && x < 4194304.0f)) return x > 0 && x < 2147483648.0f ? static_cast<int32_t>(x) : INT32_MIN;
  volatile float shifted = x + 12582912.0f;
  return static_cast<int32_t>(shifted - 12582912.0f);
}
inline I i_round(F a) { return lanes<I>([&](int i) { return round_one(a.v[i]); }); }
inline F f_from_i(I a) { return lanes<F>([&](int i) { return static_cast<float>(a.v[i]); }); }
inline F f_pow2(F n) {
  return lanes<F>([&](int i) {
    const int32_t bits = (static_cast<int32_t>(n.v[i]) + 127) * (1 << 23);
    float r;
    __builtin_memcpy(&r, &bits, 4);
    return r;
  });
}
inline void store_u8(uint8_t* p, I a) {
  for (int i = 0; i < 4; ++i) p[i] = static_cast<uint8_t>(a.v[i]);
}

inline X x_broadcast(const uint8_t* p) {
  X x;
  __builtin_memcpy(x.v, p, 4);
  return x;
}
inline B b_load(const void* p) {
  B b;
  __builtin_memcpy(b.v, p, 16);
  return b;
}
inline I i_dot4(I acc, X x, B w) {
  return lanes<I>([&](int i) {
    const int8_t* q = w.v + 4 * i;
    return acc.v[i] + x.v[0] * q[0] + x.v[1] * q[1] + x.v[2] * q[2] + x.v[3] * q[3];
  });
}
inline void b_load_codes(const void* p, B* first, B* second) {
  const auto* bytes = static_cast<const uint8_t*>(p);
  for (int i = 0; i < 16; ++i) {
    first->v[i] = static_cast<int8_t>((bytes[i] & 15) - 8);
    second->v[i] = static_cast<int8_t>((bytes[i] >> 4) - 8);
  }
}

inline float widen_one(uint16_t half) {
  const uint32_t bits = static_cast<uint32_t>(half) << 16;
  float r;
  __builtin_memcpy(&r, &bits, 4);
  return r;
}
inline void f_widen_pairs(const uint16_t* p, F* even, F* odd) {
  for (int i = 0; i < 4; ++i) {
    even->v[i] = widen_one(p[2 * i]);
    odd->v[i] = widen_one(p[2 * i + 1]);
  }
}

// score: see vec_avx512.inl.
// ternary: codes 0..2 against signed activations.
template <int S>
inline I i_dot_codes(I acc, const B (&codes)[S], const int8_t* x, int64_t step) {
  for (int s = 0; s < S; ++s) acc = i_dot4(acc, x_broadcast(reinterpret_cast<const uint8_t*>(x + s * step)), codes[s]);
  return acc;
}
template <int R>  // rows that are multiplied by them
inline void b_unpack(const void* p, B (&codes)[4]) {
  const auto* bytes = static_cast<const uint8_t*>(p);
  for (int i = 0; i < 16; ++i) {
    for (int s = 0; s < 4; ++s) codes[s].v[i] = static_cast<int8_t>(bytes[i] >> (2 * s) & 3);
  }
}
template <int R>  // rows that are multiplied by them
inline void b_unpack(const void* p, B (&codes)[5]) {
  const auto* bytes = static_cast<const uint8_t*>(p);
  for (int i = 0; i < 16; ++i) {
    int left = bytes[i];
    for (int s = 0; s < 5; ++s, left /= 3) codes[s].v[i] = static_cast<int8_t>(left % 3);
  }
}

constexpr int kSignedOffset = 0;
inline float half_one(uint16_t half) {
  const uint32_t sign = static_cast<uint32_t>(half & 0x8000u) << 16, magnitude = half & 0x7fffu;
  if (magnitude < 0x400u) {  // zero and subnormal: the magnitude counts units of 2^-24
    const float value = static_cast<float>(magnitude) * 5.9604644775390625e-8f;
    return sign ? -value : value;
  }
  const uint32_t bits = sign | (magnitude >= 0x7c00u ? 0x7f800000u | (magnitude & 0x3ffu) << 13
                                                      : (magnitude << 13) + (112u << 23));
  float r;
  __builtin_memcpy(&r, &bits, 4);
  return r;
}
inline F f_load_half(const uint16_t* p) {
  return lanes<F>([&](int i) { return half_one(p[i]); });
}
inline int32_t i_sum(I a) { return a.v[0] + a.v[1] + a.v[2] + a.v[3]; }
inline void i_store(int32_t* p, I a) { __builtin_memcpy(p, a.v, sizeof a.v); }
inline bool i_any_at_least(I a, I limit) {
  return a.v[0] >= limit.v[0] || a.v[1] >= limit.v[1] || a.v[2] >= limit.v[2] || a.v[3] >= limit.v[3];
}
inline void b_load_halves(const void* p, B* low, B* high) {
  const auto* bytes = static_cast<const uint8_t*>(p);
  for (int i = 0; i < 16; ++i) {
    low->v[i] = static_cast<int8_t>(bytes[i] & 15);
    high->v[i] = static_cast<int8_t>(bytes[i] >> 4);
  }
}
inline B b_broadcast(const int8_t* p) {
  B b;
  for (int i = 0; i < 16; ++i) b.v[i] = p[i & 3];
  return b;
}
inline I i_dot4_signed(I acc, B row, B query) {
  return lanes<I>([&](int i) {
    int32_t sum = acc.v[i];
    for (int j = 4 * i; j < 4 * i + 4; ++j) sum += row.v[j] * query.v[j];
    return sum;
  });
}
inline I i_dot4_halves(I acc, B halves, B query) { return i_dot4_signed(acc, halves, query); }

// pages: see vec_avx512.inl.
inline F f_less(F a, F b, F yes, F no) {
  return lanes<F>([&](int i) { return a.v[i] < b.v[i] ? yes.v[i] : no.v[i]; });
}
inline I i_low7(I a) { return lanes<I>([&](int i) { return a.v[i] & 127; }); }
inline I i_shift7(I a) { return lanes<I>([&](int i) { return a.v[i] >> 7; }); }
inline B b_rows(const void* p) { return b_load(p); }
inline I i_dot4_rows(I acc, B rows, B query) { return i_dot4_signed(acc, rows, query); }

}  // namespace
}  // namespace kogata
