#include "tests/cuda/wrapper_checks.h"

#include <cmath>
#include <numeric>
#include <random>
#include <vector>

#include "kernels/quant.h"
#include "tests/cuda/device_array.h"
#include "tests/cuda/matrix_kernels.h"

namespace pkv::test {
namespace {

std::string at(size_t i, double got, double expected) {
  return "element " + std::to_string(i) + " is " + std::to_string(got) + ", not " + std::to_string(expected);
}

std::string multiplies(gpu::Stream& stream) {
  std::mt19937 rng(1);
  std::normal_distribution<float> normal;
  std::vector<uint16_t> a(16 * 16), b(16 * 8);
  for (uint16_t& half : a) half = float_to_half(normal(rng));
  for (uint16_t& half : b) half = float_to_half(normal(rng));
  const DeviceArray<uint16_t> left(stream, a), right(stream, b);
  const DeviceArray<float> sums(stream, std::vector<float>(16 * 8, 0.25f));
  multiply_halves(stream, left.data(), right.data(), sums.data());
  const std::vector<float> c = sums.read();
  for (size_t row = 0; row < 16; ++row) {
    for (size_t column = 0; column < 8; ++column) {
      double expected = 0.25;
      for (size_t k = 0; k < 16; ++k) {
        expected += static_cast<double>(half_to_float(a[row * 16 + k])) * half_to_float(b[k * 8 + column]);
      }
      const size_t i = row * 8 + column;
      if (!(std::abs(c[i] - expected) <= 1e-6 * (1 + std::abs(expected)))) return at(i, c[i], expected);
    }
  }
  return "";
}

std::vector<uint16_t> numbered(size_t count) {
  std::vector<uint16_t> numbers(count);
  std::iota(numbers.begin(), numbers.end(), uint16_t{1});
  return numbers;
}

std::string transposed_is(const std::vector<uint16_t>& got, const std::vector<uint16_t>& from, size_t matrices) {
  for (size_t i = 0; i < matrices * 64; ++i) {
    const uint16_t expected = from[i / 64 * 64 + i % 8 * 8 + i % 64 / 8];
    if (got[i] != expected) return at(i, got[i], expected);
  }
  return "";
}

std::string transposes_loading(gpu::Stream& stream) {
  const std::vector<uint16_t> from = numbered(4 * 64);
  const DeviceArray<uint16_t> in(stream, from), out(stream, std::vector<uint16_t>(4 * 64));
  transpose_loading(stream, in.data(), 8, out.data());
  return transposed_is(out.read(), from, 4);
}

std::string transposes_moving(gpu::Stream& stream) {
  const std::vector<uint16_t> from = numbered(64);
  const DeviceArray<uint16_t> in(stream, from), out(stream, std::vector<uint16_t>(64));
  transpose_moving(stream, in.data(), out.data());
  return transposed_is(out.read(), from, 1);
}

std::string codes_become_halves(gpu::Stream& stream) {
  std::mt19937 rng(2);
  std::vector<uint32_t> registers(32);
  for (uint32_t& bits : registers) bits = static_cast<uint32_t>(rng());
  const DeviceArray<uint32_t> in(stream, registers);
  const DeviceArray<uint16_t> bytes(stream, std::vector<uint16_t>(32 * 4)),
      nibbles(stream, std::vector<uint16_t>(32 * 8));
  halves_of_codes(stream, in.data(), bytes.data(), nibbles.data());
  const std::vector<uint16_t> of_bytes = bytes.read(), of_nibbles = nibbles.read();
  for (size_t i = 0; i < of_bytes.size(); ++i) {
    constexpr uint32_t kOrder[] = {0, 2, 1, 3};
    const float expected = static_cast<int8_t>(registers[i / 4] >> 8 * kOrder[i % 4]);
    if (half_to_float(of_bytes[i]) != expected) return at(i, half_to_float(of_bytes[i]), expected);
  }
  for (size_t i = 0; i < of_nibbles.size(); ++i) {
    const int32_t code = static_cast<int32_t>(registers[i / 8] >> (16 * (i % 2) + 4 * (i % 8 / 2)) & 15);
    const float expected = static_cast<float>(code < 8 ? code : code - 16);
    if (half_to_float(of_nibbles[i]) != expected) return at(i, half_to_float(of_nibbles[i]), expected);
  }
  return "";
}

std::string copies(gpu::Stream& stream) {
  std::vector<float> from(3 * 32 * 4);
  std::iota(from.begin(), from.end(), 1.0f);
  const DeviceArray<float> in(stream, from);
  for (const bool there : {true, false}) {
    const DeviceArray<float> out(stream, std::vector<float>(from.size(), -1.0f));
    copy_groups(stream, in.data(), there, /*waits=*/true, out.data());
    const std::vector<float> got = out.read();
    for (size_t i = 0; i < from.size(); ++i) {
      if (got[i] != (there ? from[i] : 0)) return at(i, got[i], there ? from[i] : 0);
    }
  }
  return "";
}

constexpr WrapperCheck kChecks[] = {
    {"mma.m16n8k16, halves", multiplies},   {"ldmatrix.trans", transposes_loading},
    {"movmatrix.trans", transposes_moving}, {"prmt and sub.f16x2, codes", codes_become_halves},
    {"cp.async, groups and zeros", copies},
};

}  // namespace

std::span<const WrapperCheck> wrapper_checks() { return kChecks; }

}  // namespace pkv::test
