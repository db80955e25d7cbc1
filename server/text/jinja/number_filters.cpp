// Filters that make numbers, or change them.
#include <cmath>
#include <cstdlib>

#include "absl/strings/str_format.h"
#include "kernels/status_macros.h"
#include "server/text/jinja/operations.h"
#include "server/text/jinja/value_text.h"

namespace pkv::jinja {
namespace {

using Result = absl::StatusOr<Value>;

std::optional<int64_t> truncated(double value) {
  if (!(std::fabs(value) < 9.2e18)) return std::nullopt;
  return static_cast<int64_t>(value);
}

Result integer(Run&, const Value& self, const Bound& arguments) {
  PKV_RETURN_IF_ERROR(undefined_error(self));
  PKV_ASSIGN_OR_RETURN(const int64_t base, arguments.integer(1, 10));
  if (base != 0 && (base < 2 || base > 36)) return template_error("int: base ", base);
  std::optional<int64_t> value = self.as_integer();
  if (const double* real = self.real()) value = truncated(*real);
  if (const String* string = self.string()) {
    value = parse_integer(string->text.bytes(), static_cast<int>(base));
    if (!value.has_value()) {
      const auto real = parse_real(string->text.bytes());
      if (real.has_value()) value = truncated(*real);
    }
  }
  if (value.has_value()) return Value::of(*value);
  return arguments[0] == nullptr ? Value::of(int64_t{0}) : *arguments[0];
}

Result real(Run&, const Value& self, const Bound& arguments) {
  PKV_RETURN_IF_ERROR(undefined_error(self));
  std::optional<double> value = self.as_real();
  if (const String* string = self.string()) value = parse_real(string->text.bytes());
  if (value.has_value()) return Value::of(*value);
  return arguments[0] == nullptr ? Value::of(0.0) : *arguments[0];
}

Result absolute(Run&, const Value& self, const Bound&) {
  PKV_RETURN_IF_ERROR(undefined_error(self));
  if (const auto value = self.as_integer(); value.has_value()) {
    return *value < 0 ? negate(Value::of(*value)) : Result(Value::of(*value));
  }
  if (const double* value = self.real()) return Value::of(std::fabs(*value));
  return template_error("bad operand type for abs(): '", self.type(), "'");
}

Result rounded(Run&, const Value& self, const Bound& arguments) {
  PKV_ASSIGN_OR_RETURN(const int64_t precision, arguments.integer(0, 0));
  PKV_ASSIGN_OR_RETURN(const Text method, arguments.text(1, "common"));
  const auto value = self.as_real();
  if (!value.has_value()) return template_error("round needs a number, not ", self.type());
  if (precision < 0 || precision > 30) return template_error("round: a precision of ", precision);
  if (method.bytes() == "common") {
    if (self.as_integer().has_value()) return Value::of(*self.as_integer());
    return Value::of(std::strtod(absl::StrFormat("%.*f", static_cast<int>(precision), *value).c_str(), nullptr));
  }
  if (method.bytes() != "ceil" && method.bytes() != "floor")
    return template_error("method must be common, ceil or floor");
  const double scale = std::pow(10.0, static_cast<double>(precision));
  return Value::of((method.bytes() == "ceil" ? std::ceil(*value * scale) : std::floor(*value * scale)) / scale);
}

constexpr Function kFilters[] = {
    {"int", integer, {"default", "base"}},
    {"float", real, {"default"}},
    {"abs", absolute},
    {"round", rounded, {"precision", "method"}},
};

}  // namespace

FunctionTable number_filters() { return kFilters; }

}  // namespace pkv::jinja
