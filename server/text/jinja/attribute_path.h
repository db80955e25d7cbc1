// The argument `attribute` of filters: "function.name" or "0.x" or 3, looked up step by step.
#pragma once

#include "absl/status/statusor.h"
#include "server/text/jinja/value.h"

namespace pkv::jinja {

// What `path` leads to; the item itself where `path` is null or none. What is missing on the way becomes `otherwise`,
// where that is not null.
absl::StatusOr<Value> follow_path(const Value& item, const Value* path, const Value* otherwise, Budget& budget);

}  // namespace pkv::jinja
