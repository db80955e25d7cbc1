// Reads the parts of a Jinja chat template that write text, without running it: which strings and variables follow each
// other. Enough to recognise a known format and to take its literals from the model instead of from us.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace pkv {

// One operand of a concatenation.
struct TemplatePart {
  bool literal = false;
  std::string text;      // a literal's value, or an expression without spaces, x['y'] written as x.y
  bool trimmed = false;  // an expression with the filter trim or the method strip, which are not part of `text`

  bool operator==(const TemplatePart&) const = default;
};

// Text and expressions between two statements, or the right side of one {% set %}. Neighbouring literals are joined.
struct TemplateOutput {
  std::string variable;  // what {% set %} assigns to; empty: written out
  std::vector<TemplatePart> parts;
};

// In the order of the template. White space control as transformers sets it: trim_blocks and lstrip_blocks. Never
// fails: what is not understood comes out as an expression that no format knows.
std::vector<TemplateOutput> scan_template(std::string_view text);

}  // namespace pkv
