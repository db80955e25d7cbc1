// An engine that needs no model: what it is given it answers with one token.
#pragma once

#include <memory>
#include <utility>

#include "tests/unit/api/api_fixture.h"

namespace pkv {

inline void answer_at_once(TokenSink& sink) {
  RequestResult result{.finish_reason = FinishReason::kLength};
  result.cache.layers.resize(2);
  sink.on_start();
  sink.on_token({.id = test::kTinyFirstByte});
  sink.on_end(std::move(result));
}

class AnsweringEngine final : public StillEngine {
 public:
  absl::Status submit(Prepared, const JobClaim&, std::shared_ptr<TokenSink> sink) override {
    answer_at_once(*sink);
    return absl::OkStatus();
  }
};

}  // namespace pkv
