// Vectors of the instruction set that a source is compiled for, one interface for all. Sources of kernels are compiled
// once per set (CMakeLists.txt); what they include from here on has internal linkage, so that no code made for one set
// is ever shared with code that runs on lesser CPUs.
//
// Vec<float> holds, each set in its own header:
//   Type, kWidth               a vector and its elements; Types add, subtract and multiply with + - *
//   broadcast(x)               all elements x
//   load(p)                    kWidth elements at p: floats; halves, bfloat16, int8 and nibbles are made float
//   (exactly) load_first(p, n)           the first n of them; the rest is undefined, and up to 8 elements may be read
//   load_split(p, even, odd)   2 * kWidth nibbles at p: those at even places, and those at odd ones
//   zip(even, odd, a, b)       puts them into order again: a the first kWidth, b the others
//   store(p, v)                all elements
//   store_first(p, v, n)       the first n; those behind may be written, too
//   store_range(p, v, from, to)  elements [from, to) to the same places of p, nothing else
//   fma(a, b, c)               a * b + c, rounded as the set does it
//   max(a, b)                  element by element
//   first(v), sum(v), largest(v)
//   round(x)                   to the nearest integer, ties to even
//   ldexp(p, n, x)             p * 2^n for whole n in [-126, 127]; 0 where x < -126
//   to_half(p, v)              kWidth halves at p, rounded to nearest even
//   to_int(v)                  to Vec<int32_t>, rounded to nearest even
// and half_of(x), float_of(half) of single numbers
//
// Vec<int32_t> is as wide:
//   Type, broadcast(x), load(p)  p: 4 * kWidth bytes; Types have &
//   load_u8(p), load_i8(p)     kWidth bytes made 32-bit
//   store_i8(p, v)             kWidth elements that fit a byte
//   add(a, b), shift_right<n>(v)  the shift is logical
//   to_float(v), sum(v)
#pragma once

#if defined(PKV_ISA_AVX512)
#include "kernels/cpu/vec_avx512.h"
#elif defined(PKV_ISA_AVX2)
#include "kernels/cpu/vec_avx2.h"
#else
#include "kernels/cpu/vec_scalar.h"
#endif
