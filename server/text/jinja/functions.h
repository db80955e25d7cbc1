// Functions written in C++: filters, tests, methods, globals. Tables of them, and their arguments by name.
#pragma once

#include <array>
#include <ctime>
#include <memory>
#include <optional>
#include <span>
#include <stop_token>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "server/text/jinja/value.h"
#include "server/text/jinja/words.h"

namespace pkv::jinja {

// What one rendering has in common.
struct Run {
  Run(const Limits& limits, std::stop_token stop) : budget(limits, std::move(stop)) {}

  Namespace* new_namespace();

  Budget budget;
  std::optional<std::tm> now;                          // what strftime_now writes; none: it is not defined
  std::vector<std::unique_ptr<Namespace>> namespaces;  // after the budget, which they give back to
};

// FAILED_PRECONDITION: something the template does that Python would not.
template <typename... Parts>
absl::Status template_error(const Parts&... parts) {
  return absl::FailedPreconditionError(words(parts...));
}

struct Arguments {
  std::vector<Value> values;
  std::vector<std::pair<std::string, Value>> named;

  const Value* find(std::string_view name) const;
};

struct Function;

// The arguments of one call in the order of the function's parameters. `all`: as they were written.
class Bound {
 public:
  // FAILED_PRECONDITION for what the function has no parameter for, or misses.
  static absl::StatusOr<Bound> bind(const Function& function, const Arguments& arguments);

  const Value* operator[](size_t index) const { return values_[index]; }  // null: not given
  const Arguments& all() const { return *all_; }

  bool flag(size_t index, bool otherwise) const;
  absl::StatusOr<int64_t> integer(size_t index, int64_t otherwise) const;
  // As text; `otherwise` where it is not given. FAILED_PRECONDITION where it is not a string.
  absl::StatusOr<Text> text(size_t index, std::string_view otherwise = "") const;

 private:
  static constexpr size_t kMost = 5;

  std::array<const Value*, kMost> values_ = {};
  const Arguments* all_ = nullptr;

  friend struct Function;
};

// `self`: what a filter or test is applied to, or a method belongs to.
struct Function {
  using Body = absl::StatusOr<Value> (*)(Run& run, const Value& self, const Bound& arguments);

  std::string_view name;
  Body body;
  std::array<std::string_view, 5> parameters = {};
  size_t required = 0;
  bool variadic = false;     // reads Bound::all
  bool pays_itself = false;  // for what it looks at; of others a call pays for all of it

  absl::StatusOr<Value> call(Run& run, const Value& self, const Arguments& arguments) const;
};

using FunctionTable = std::span<const Function>;
const Function* find_function(FunctionTable table, std::string_view name);  // null: none

// The tables, and null for an unknown name.
const Function* find_filter(std::string_view name);
const Function* find_test(std::string_view name);
const Function* find_global(std::string_view name);
const Function* find_method(const Value& self, std::string_view name);

FunctionTable string_filters();
FunctionTable sequence_filters();
FunctionTable selecting_filters();
FunctionTable number_filters();
FunctionTable string_methods();
FunctionTable string_query_methods();
FunctionTable dict_methods();
FunctionTable sequence_methods();
FunctionTable loop_methods();

}  // namespace pkv::jinja
