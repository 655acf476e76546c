// exp and GELU over the vector type; coefficients are our own minimax fits (checked in tests against float64).

namespace kogata {
namespace {

// e^x to 2 ulp for x in [-87, 88]; below that it is e^-87 (1.6e-38), which no sum of exponentials near 1 can see.
inline F f_exp(F x) {
  x = f_min(f_max(x, f_set1(-87.0f)), f_set1(88.0f));
  // Adding 1.5 * 2^23 rounds to an integer in the last bits of the mantissa; subtracting it gives that integer back.
  const F magic = f_set1(12582912.0f);
  const F n = f_sub(f_fma(x, f_set1(1.44269504f), magic), magic);
  F r = f_fma(n, f_set1(-0.693359375f), x);
  r = f_fma(n, f_set1(2.12194440e-4f), r);
  F p = f_set1(0.00138357994f);
  p = f_fma(p, r, f_set1(0.00837564501f));
  p = f_fma(p, r, f_set1(0.0416682888f));
  p = f_fma(p, r, f_set1(0.166664102f));
  p = f_fma(p, r, f_set1(0.499999916f));
  p = f_fma(p, r, f_set1(1.00000004f));
  p = f_fma(p, r, f_set1(1.0f));
  return f_mul(p, f_pow2(n));
}

// x * Phi(x) with the exact Phi (not the tanh form), to 1e-6: erf(x / sqrt 2) = x P(x^2) / Q(x^2) on |x| <= 5.5.
inline F f_gelu(F x) {
  const F inner = f_min(f_max(x, f_set1(-5.5f)), f_set1(5.5f));
  const F u = f_mul(inner, inner);
  F p = f_set1(4.4425859679e-8f);
  p = f_fma(p, u, f_set1(1.30609600750e-5f));
  p = f_fma(p, u, f_set1(3.65736946422e-4f));
  p = f_fma(p, u, f_set1(9.52335863112e-3f));
  p = f_fma(p, u, f_set1(7.02873738317e-2f));
  p = f_fma(p, u, f_set1(7.97883972413e-1f));
  F q = f_set1(1.195290035e-6f);
  q = f_fma(q, u, f_set1(7.86117445386e-5f));
  q = f_fma(q, u, f_set1(1.96249697585e-3f));
  q = f_fma(q, u, f_set1(2.93994164625e-2f));
  q = f_fma(q, u, f_set1(2.54755750301e-1f));
  q = f_fma(q, u, f_set1(1.0f));
  const F erf = f_div(f_mul(inner, p), q);
  const F half = f_mul(f_set1(0.5f), f_max(x, f_set1(-5.5f)));  // below -5.5 the product is under 1e-7 anyway
  return f_fma(half, erf, half);
}

inline F f_sigmoid(F x) { return f_div(f_set1(1.0f), f_add(f_set1(1.0f), f_exp(f_sub(f_zero(), x)))); }

// act(gate) * up; the GELU is the tanh form: x * sigmoid(2 sqrt(2 / pi) (x + 0.044715 x^3)).
inline F f_gated(Glu glu, F gate, F up) {
  switch (glu) {
    case Glu::none: return up;
    case Glu::silu: return f_mul(f_mul(gate, f_sigmoid(gate)), up);
    case Glu::gelu_tanh: {
      const F cube = f_mul(gate, f_fma(f_mul(gate, gate), f_set1(0.044715f), f_set1(1.0f)));
      return f_mul(f_mul(gate, f_sigmoid(f_mul(cube, f_set1(1.59576912f)))), up);
    }
    case Glu::relu2: {
      const F positive = f_max(gate, f_zero());
      return f_mul(f_mul(positive, positive), up);
    }
  }
  return up;
}

inline float widen_f16(uint16_t half) {
  const uint32_t sign = static_cast<uint32_t>(half & 0x8000u) << 16, exponent = (half >> 10) & 31u;
  uint32_t bits = static_cast<uint32_t>(half & 0x3ffu) << 13;
  if (exponent == 31u) {
    bits |= 0x7f800000u;
  } else if (exponent != 0u) {
    bits |= (exponent + 112u) << 23;
  } else {  // subnormal: the fraction counts units of 2^-24
    const float value = static_cast<float>(half & 0x3ffu) * 5.9604644775390625e-8f;
    __builtin_memcpy(&bits, &value, 4);
  }
  bits |= sign;
  float value;
  __builtin_memcpy(&value, &bits, 4);
  return value;
}

}  // namespace
}  // namespace kogata
