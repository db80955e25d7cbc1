// What a template can call: functions, methods of a value, macros.
#pragma once

#include "server/text/jinja/functions.h"
#include "server/text/jinja/value.h"

namespace pkv::jinja {

struct Callable {
  const Function* function = nullptr;  // a global or a method
  Value self;                          // of a method
  const Macro* macro = nullptr;        // instead of a function
  Charge charge = Charge();
};

}  // namespace pkv::jinja
