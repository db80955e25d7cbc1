// A straightforward forward pass.
#include "tests/unit/model/plain_decoder.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <string>

#include "kernels/quant.h"

namespace pkv::test {
namespace {

using Row = std::vector<double>;

// A tensor as rows; a vector is one row. Empty where the file has none.
Matrix weights(const GgufFile& file, const std::string& name) {
  const GgufTensor* tensor = file.find_tensor(name);
  if (tensor == nullptr) return {};
  const WeightSource source = tensor->source();
  std::vector<float> values(static_cast<size_t>(source.rows * source.cols));
  quant_traits(source.type).decode(source.data, values.data(), source.rows * source.cols);
  Matrix result;
  for (int64_t r = 0; r < source.rows; ++r) {
    result.emplace_back(values.begin() + r * source.cols, values.begin() + (r + 1) * source.cols);
  }
  return result;
}

Matrix times(const Matrix& x, const Matrix& weight, const Matrix& bias = {}) {
  Matrix out;
  for (const Row& row : x) {
    Row& result = out.emplace_back();
    for (size_t o = 0; o < weight.size(); ++o) {
      double sum = bias.empty() ? 0 : bias[0][o];
      for (size_t i = 0; i < row.size(); ++i) sum += row[i] * weight[o][i];
      result.push_back(sum);
    }
  }
  return out;
}

Matrix norm(const Matrix& x, const Row& gain, double eps) {
  Matrix out = x;
  for (Row& row : out) {
    double squares = 0;
    for (double value : row) squares += value * value;
    const double factor = 1 / std::sqrt(squares / static_cast<double>(row.size()) + eps);
    for (size_t i = 0; i < row.size(); ++i) row[i] *= factor * gain[i];
  }
  return out;
}

void add(Matrix& x, const Matrix& y) {
  for (size_t r = 0; r < x.size(); ++r) {
    for (size_t i = 0; i < x[r].size(); ++i) x[r][i] += y[r][i];
  }
}

// Every head by itself; as it is without a gain.
Matrix norm_heads(const Matrix& x, size_t head_dim, const Matrix& gain, double eps) {
  if (gain.empty()) return x;
  Matrix out;
  for (const Row& row : x) {
    Row& result = out.emplace_back();
    for (size_t head = 0; head < row.size(); head += head_dim) {
      const Matrix normed =
          norm({Row(row.begin() + static_cast<int64_t>(head), row.begin() + static_cast<int64_t>(head + head_dim))},
               gain[0], eps);
      result.insert(result.end(), normed[0].begin(), normed[0].end());
    }
  }
  return out;
}

// Row r is at position r. Pair i of the first `rotary` dimensions of a head turns by r / base^(2i / rotary): dimensions
// 2i and 2i + 1 in llama, i and rotary / 2 + i in the others.
void rotate(Matrix& x, size_t head_dim, const GgufFile& file) {
  const std::string architecture = *file.string("general.architecture");
  const auto rotary = static_cast<size_t>(*file.u32(architecture + ".rope.dimension_count"));
  const double base = *file.number(architecture + ".rope.freq_base");
  const double stretch = *file.number_or(architecture + ".rope.scaling.factor", 1);
  const Matrix factors = weights(file, "rope_freqs.weight");
  for (size_t r = 0; r < x.size(); ++r) {
    for (size_t head = 0; head < x[r].size(); head += head_dim) {
      for (size_t i = 0; i < rotary / 2; ++i) {
        const double factor = factors.empty() ? 1 : factors[0][i];
        const double angle = static_cast<double>(r) /
                             std::pow(base, static_cast<double>(2 * i) / static_cast<double>(rotary)) / stretch /
                             factor;
        const bool neighbours = architecture == "llama";
        double& a = x[r][head + (neighbours ? 2 * i : i)];
        double& b = x[r][head + (neighbours ? 2 * i + 1 : rotary / 2 + i)];
        const double turned = a * std::cos(angle) - b * std::sin(angle);
        b = a * std::sin(angle) + b * std::cos(angle);
        a = turned;
      }
    }
  }
}

Matrix attention(const Matrix& q, const Matrix& k, const Matrix& v, size_t head_dim) {
  const size_t group = q[0].size() / k[0].size();
  Matrix out(q.size(), Row(q[0].size()));
  for (size_t r = 0; r < q.size(); ++r) {
    for (size_t head = 0; head < q[0].size() / head_dim; ++head) {
      const size_t at = head * head_dim, kv_at = head / group * head_dim;
      Row probabilities;
      double sum = 0;
      for (size_t s = 0; s <= r; ++s) {
        double score = 0;
        for (size_t i = 0; i < head_dim; ++i) score += q[r][at + i] * k[s][kv_at + i];
        probabilities.push_back(std::exp(score / std::sqrt(static_cast<double>(head_dim))));
        sum += probabilities.back();
      }
      for (size_t s = 0; s <= r; ++s) {
        for (size_t i = 0; i < head_dim; ++i) out[r][at + i] += probabilities[s] / sum * v[s][kv_at + i];
      }
    }
  }
  return out;
}

}  // namespace

Matrix plain_decoder_logits(const GgufFile& file, const std::vector<int32_t>& tokens) {
  const std::string keys = *file.string("general.architecture") + ".";
  const size_t head_dim = *file.u32(keys + "attention.key_length");
  const double eps = *file.number(keys + "attention.layer_norm_rms_epsilon");
  const Matrix embedding = weights(file, "token_embd.weight");
  Matrix x;
  for (int32_t token : tokens) x.push_back(embedding[static_cast<size_t>(token)]);
  for (uint32_t layer = 0; layer < *file.u32(keys + "block_count"); ++layer) {
    const auto get = [&](const char* name) { return weights(file, "blk." + std::to_string(layer) + "." + name); };
    Matrix h = norm(x, get("attn_norm.weight")[0], eps);
    Matrix q = times(h, get("attn_q.weight"), get("attn_q.bias"));
    Matrix k = times(h, get("attn_k.weight"), get("attn_k.bias"));
    const Matrix v = times(h, get("attn_v.weight"), get("attn_v.bias"));
    q = norm_heads(q, head_dim, get("attn_q_norm.weight"), eps);
    k = norm_heads(k, head_dim, get("attn_k_norm.weight"), eps);
    rotate(q, head_dim, file);
    rotate(k, head_dim, file);
    add(x, times(attention(q, k, v, head_dim), get("attn_output.weight")));
    h = norm(x, get("ffn_norm.weight")[0], eps);
    Matrix gate = times(h, get("ffn_gate.weight"));
    const Matrix up = times(h, get("ffn_up.weight"));
    for (size_t r = 0; r < gate.size(); ++r) {
      for (size_t i = 0; i < gate[r].size(); ++i) gate[r][i] = gate[r][i] / (1 + std::exp(-gate[r][i])) * up[r][i];
    }
    add(x, times(gate, get("ffn_down.weight")));
  }
  const Matrix own_head = weights(file, "output.weight");
  return times(norm(x, weights(file, "output_norm.weight")[0], eps), own_head.empty() ? embedding : own_head);
}

}  // namespace pkv::test
