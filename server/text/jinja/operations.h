// What Python's operators and built-in functions do with values. Errors are FAILED_PRECONDITION, in Python's words.
#pragma once

#include <memory>
#include <optional>

#include "absl/status/statusor.h"
#include "server/text/jinja/functions.h"
#include "server/text/jinja/value.h"

namespace pkv::jinja {

// comparison.cpp
bool equal(const Value& left, const Value& right, Budget& budget);
absl::StatusOr<bool> less(const Value& left, const Value& right, Budget& budget);
absl::StatusOr<bool> less_equal(const Value& left, const Value& right, Budget& budget);
absl::StatusOr<bool> contains(const Value& container, const Value& item, Budget& budget);
absl::Status check_hashable(const Value& key);
// Sets `key`, or replaces what it has.
void insert(std::vector<std::pair<Value, Value>>& items, Value key, Value value, Budget& budget);

// access.cpp
absl::StatusOr<Value> get_attribute(const Value& object, std::string_view name, Budget& budget);
absl::StatusOr<Value> get_item(const Value& object, const Value& key, Budget& budget);
// A bound that is not given is none.
absl::StatusOr<Value> get_slice(const Value& object, const Value& start, const Value& stop, const Value& step,
                                Budget& budget);
// What a loop walks through: the items of a sequence, characters of a string, keys of a dict. A generator only once.
absl::StatusOr<std::shared_ptr<const Sequence>> iterate(const Value& value, Budget& budget);
absl::StatusOr<int64_t> length(const Value& value, Budget& budget);
bool is_iterable(const Value& value);
absl::Status undefined_error(const Value& value);  // what is wrong with an undefined value that is used

// arithmetic.cpp
enum class BinaryOperator : uint8_t { kAdd, kSubtract, kMultiply, kDivide, kFloorDivide, kModulo, kPower };
absl::StatusOr<Value> operate(BinaryOperator op, const Value& left, const Value& right, Budget& budget);
absl::StatusOr<Value> negate(const Value& value);

// percent_format.cpp: Python's % on strings
absl::StatusOr<Value> percent_format(const Text& format, const Arguments& arguments, Budget& budget);

}  // namespace pkv::jinja
