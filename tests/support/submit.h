// Prepares a request and submits it, for whoever does nothing in between.
#pragma once

#include <memory>
#include <utility>

#include "server/engine/engine.h"

namespace pkv::test {

inline absl::Status prepare_and_submit(Engine& engine, std::shared_ptr<const Request> request,
                                       std::shared_ptr<TokenSink> sink, const JobClaim& claim = {}) {
  absl::StatusOr<Prepared> prepared = engine.prepare(std::move(request));
  return prepared.ok() ? engine.submit(*std::move(prepared), claim, std::move(sink)) : prepared.status();
}

}  // namespace pkv::test
