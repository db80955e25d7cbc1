// The rules of sampling.*: ranges, and no NaN anywhere.
#include "server/api/sampling_rules.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>

#include "absl/strings/str_cat.h"
#include "server/api/errors.h"

namespace pkv {
namespace {

namespace pb = ::pyramidkv::v1;

constexpr float kMaxTemperature = 100.0F;
constexpr float kMaxRepetitionPenalty = 100.0F;

struct Range {
  float min = 0;
  float max = 0;
  bool open_min = false;  // min itself is out
  bool open_max = false;

  // False for NaN, which compares false with everything.
  bool has(float value) const {
    return (open_min ? value > min : value >= min) && (open_max ? value < max : value <= max);
  }
  std::string describe() const {
    return absl::StrCat("must be in ", open_min ? "(" : "[", min, ", ", max, open_max ? ")" : "]");
  }
};

absl::Status read_real(bool given, float value, const Range& range, const char* field, float& out) {
  if (!given) return absl::OkStatus();
  if (!range.has(value))
    return bad_sampling(absl::StrCat("sampling.", field), absl::StrCat(range.describe(), ", not ", value));
  out = value;
  return absl::OkStatus();
}

absl::Status read_count(bool given, uint32_t value, const char* field, int32_t& out) {
  constexpr uint32_t kMax = std::numeric_limits<int32_t>::max();
  if (!given) return absl::OkStatus();
  if (value > kMax) return bad_sampling(absl::StrCat("sampling.", field), absl::StrCat("must be at most ", kMax));
  out = static_cast<int32_t>(value);
  return absl::OkStatus();
}

absl::Status read_reals(const pb::SamplingParams& message, SamplingParams& out) {
  absl::Status status =
      read_real(message.has_temperature(), message.temperature(), {0, kMaxTemperature}, "temperature", out.temperature);
  status.Update(read_real(message.has_top_p(), message.top_p(), {0, 1, true}, "top_p", out.top_p));
  status.Update(read_real(message.has_min_p(), message.min_p(), {0, 1, false, true}, "min_p", out.min_p));
  status.Update(read_real(message.has_repetition_penalty(), message.repetition_penalty(),
                          {0, kMaxRepetitionPenalty, true}, "repetition_penalty", out.repetition_penalty));
  status.Update(read_real(message.has_frequency_penalty(), message.frequency_penalty(), {-2, 2}, "frequency_penalty",
                          out.frequency_penalty));
  status.Update(read_real(message.has_presence_penalty(), message.presence_penalty(), {-2, 2}, "presence_penalty",
                          out.presence_penalty));
  return status;
}

absl::Status read_bias(const pb::SamplingParams& message, int32_t vocab_size, SamplingParams& out) {
  constexpr Range kBias{-kMaxLogitBias, kMaxLogitBias};
  for (const auto& [id, bias] : message.logit_bias()) {
    const std::string field = absl::StrCat("sampling.logit_bias[", id, "]");
    if (id >= static_cast<uint32_t>(vocab_size)) {
      return bad_sampling(field, absl::StrCat("the token id is outside the vocabulary of ", vocab_size));
    }
    if (!kBias.has(bias)) return bad_sampling(field, absl::StrCat(kBias.describe(), ", not ", bias));
    out.logit_bias.emplace_back(static_cast<TokenId>(id), bias);
  }
  std::sort(out.logit_bias.begin(), out.logit_bias.end());  // the map has no order of its own
  return absl::OkStatus();
}

}  // namespace

absl::Status read_sampling(const pb::SamplingParams& message, int32_t vocab_size, SamplingParams& out) {
  out.temperature = kDefaultTemperature;
  out.seed = message.seed();
  out.ignore_eos = message.ignore_eos();
  if (message.has_n() && message.n() != 1) {
    return bad_sampling("sampling.n", "must be 1: one cache report describes one sequence, so send the request again");
  }
  absl::Status status = read_reals(message, out);
  status.Update(read_count(message.has_top_k(), message.top_k(), "top_k", out.top_k));
  status.Update(read_count(message.has_min_tokens(), message.min_tokens(), "min_tokens", out.min_tokens));
  if (status.ok()) status = read_bias(message, vocab_size, out);
  if (!status.ok()) return status;
  if (message.stop_token_ids_size() > kMaxStopTokens) {
    return bad_sampling("sampling.stop_token_ids", absl::StrCat("must be at most ", kMaxStopTokens, " tokens, not ",
                                                                message.stop_token_ids_size()));
  }
  for (int i = 0; i < message.stop_token_ids_size(); ++i) {
    const uint32_t id = message.stop_token_ids(i);
    if (id >= static_cast<uint32_t>(vocab_size)) {
      return bad_sampling(absl::StrCat("sampling.stop_token_ids[", i, "]"),
                          absl::StrCat("token id ", id, " is outside the vocabulary of ", vocab_size));
    }
    out.stop_token_ids.push_back(static_cast<TokenId>(id));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<std::string>> read_stops(const pb::SamplingParams& message) {
  if (message.stop_size() > kMaxStops) {
    return bad_sampling("sampling.stop",
                        absl::StrCat("must be at most ", kMaxStops, " texts, not ", message.stop_size()));
  }
  for (int i = 0; i < message.stop_size(); ++i) {
    const size_t bytes = message.stop(i).size();
    if (bytes == 0 || bytes > kMaxStopBytes) {
      return bad_sampling(absl::StrCat("sampling.stop[", i, "]"),
                          absl::StrCat("must have 1 to ", kMaxStopBytes, " bytes"));
    }
  }
  return std::vector<std::string>(message.stop().begin(), message.stop().end());
}

}  // namespace pkv
