// A scanner for the outer shape of Jinja: blocks, string literals, concatenations.
#include "server/text/template_scan.h"

#include <algorithm>
#include <optional>
#include <utility>

namespace pkv {
namespace {

constexpr std::string_view kSpaces = " \t\r\n";

std::string_view trim(std::string_view text) {
  const size_t begin = text.find_first_not_of(kSpaces);
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(kSpaces) - begin + 1);
}

// The offset behind the string literal that begins at `at`; the text's end where it is not closed.
size_t literal_end(std::string_view text, size_t at) {
  const char quote = text[at];
  for (size_t i = at + 1; i < text.size(); ++i) {
    if (text[i] == '\\') {
      ++i;
    } else if (text[i] == quote) {
      return i + 1;
    }
  }
  return text.size();
}

// The offset of `closing` outside string literals.
size_t find_outside_literals(std::string_view text, size_t at, std::string_view closing) {
  while (at < text.size() && text.substr(at, closing.size()) != closing) {
    at = text[at] == '\'' || text[at] == '"' ? literal_end(text, at) : at + 1;
  }
  return std::min(at, text.size());
}

std::string unescape(std::string_view body) {
  std::string out;
  for (size_t i = 0; i < body.size(); ++i) {
    if (body[i] != '\\' || i + 1 == body.size()) {
      out += body[i];
      continue;
    }
    switch (body[++i]) {
      case 'n':
        out += '\n';
        break;
      case 't':
        out += '\t';
        break;
      case 'r':
        out += '\r';
        break;
      case '\\':
      case '\'':
      case '"':
        out += body[i];
        break;
      default:  // as Python: not an escape
        out += '\\';
        out += body[i];
    }
  }
  return out;
}

bool remove_suffix(std::string& text, std::string_view suffix) {
  if (text.size() < suffix.size() || text.compare(text.size() - suffix.size(), suffix.size(), suffix) != 0)
    return false;
  text.resize(text.size() - suffix.size());
  return true;
}

TemplatePart parse_operand(std::string_view operand) {
  operand = trim(operand);
  const bool quoted = !operand.empty() && (operand[0] == '\'' || operand[0] == '"');
  if (quoted && operand.size() >= 2 && literal_end(operand, 0) == operand.size() && operand.back() == operand.front()) {
    return {.literal = true, .text = unescape(operand.substr(1, operand.size() - 2))};
  }
  TemplatePart part;
  for (size_t at = 0; at < operand.size();) {
    const char c = operand[at];
    const bool literal = c == '\'' || c == '"';
    const size_t end = literal ? literal_end(operand, at) : at + 1;
    if (literal && at > 0 && operand[at - 1] == '[' && end < operand.size() && operand[end] == ']') {
      part.text.back() = '.';  // x['y'] is x.y
      part.text += operand.substr(at + 1, end - at - 2);
      at = end + 1;
      continue;
    }
    if (literal || kSpaces.find(c) == std::string_view::npos) part.text += operand.substr(at, end - at);
    at = end;
  }
  part.trimmed = remove_suffix(part.text, "|trim") || remove_suffix(part.text, ".strip()");
  return part;
}

void append(TemplateOutput& output, TemplatePart part) {
  if (part.text.empty()) return;
  if (part.literal && !output.parts.empty() && output.parts.back().literal) {
    output.parts.back().text += part.text;
  } else {
    output.parts.push_back(std::move(part));
  }
}

// Splits at + and ~ outside of brackets and literals.
void append_concatenation(std::string_view expression, TemplateOutput& output) {
  size_t begin = 0;
  int depth = 0;
  for (size_t at = 0; at < expression.size();) {
    const char c = expression[at];
    if (c == '\'' || c == '"') {
      at = literal_end(expression, at);
      continue;
    }
    depth += c == '(' || c == '[' || c == '{';
    depth -= c == ')' || c == ']' || c == '}';
    if (depth == 0 && (c == '+' || c == '~')) {
      append(output, parse_operand(expression.substr(begin, at - begin)));
      begin = at + 1;
    }
    ++at;
  }
  append(output, parse_operand(expression.substr(begin)));
}

// {% set variable = expression %}
std::optional<TemplateOutput> parse_set(std::string_view statement) {
  statement = trim(statement);
  if (statement.substr(0, 4) != "set ") return std::nullopt;
  const size_t equals = statement.find('=');
  if (equals == std::string_view::npos) return std::nullopt;
  TemplateOutput output;
  output.variable = trim(statement.substr(4, equals - 4));
  append_concatenation(statement.substr(equals + 1), output);
  return output;
}

struct Block {
  char kind;  // '{' expression, '%' statement, '#' comment
  bool strip_before, strip_after;
  std::string_view body;
  size_t end;
};

Block read_block(std::string_view text, size_t at) {
  const char kind = text[at + 1];
  const std::string closing = {kind == '{' ? '}' : kind, '}'};
  const size_t inside = at + 2;
  const size_t close =
      kind == '#' ? std::min(text.find(closing, inside), text.size()) : find_outside_literals(text, inside, closing);
  std::string_view body = text.substr(inside, close - inside);
  const bool before = !body.empty() && (body.front() == '-' || body.front() == '+');
  const bool strip_before = before && body.front() == '-';
  if (before) body.remove_prefix(1);
  const bool after = !body.empty() && (body.back() == '-' || body.back() == '+');
  const bool strip_after = after && body.back() == '-';
  if (after) body.remove_suffix(1);
  return {kind, strip_before, strip_after, body, std::min(close + 2, text.size())};
}

size_t find_block(std::string_view text, size_t at) {
  for (; at + 1 < text.size(); ++at) {
    if (text[at] == '{' && (text[at + 1] == '{' || text[at + 1] == '%' || text[at + 1] == '#')) return at;
  }
  return text.size();
}

// `raw` as it is written before a block: {%- takes all white space away, {% the indentation of its line.
std::string_view strip_before_block(std::string_view raw, const Block& block, bool line_start) {
  if (block.strip_before) {
    const size_t last = raw.find_last_not_of(kSpaces);
    return raw.substr(0, last == std::string_view::npos ? 0 : last + 1);
  }
  if (block.kind == '{') return raw;
  const size_t last = raw.find_last_not_of(" \t");
  if (last == std::string_view::npos) return line_start ? std::string_view() : raw;
  return raw[last] == '\n' ? raw.substr(0, last + 1) : raw;
}

}  // namespace

std::vector<TemplateOutput> scan_template(std::string_view text) {
  std::vector<TemplateOutput> outputs;
  TemplateOutput current;
  auto flush = [&] {
    if (!current.parts.empty()) outputs.push_back(std::exchange(current, {}));
  };
  bool line_start = true;
  for (size_t at = 0; at < text.size();) {
    const size_t begin = find_block(text, at);
    std::string_view raw = text.substr(at, begin - at);
    if (begin == text.size()) {
      append(current, {.literal = true, .text = std::string(raw)});
      break;
    }
    const Block block = read_block(text, begin);
    append(current, {.literal = true, .text = std::string(strip_before_block(raw, block, line_start))});
    if (block.kind == '{') {
      append_concatenation(block.body, current);
    } else if (block.kind == '%') {
      flush();
      if (auto set = parse_set(block.body); set.has_value()) outputs.push_back(*std::move(set));
    }
    at = block.end;
    line_start = false;
    if (block.strip_after) {
      at = std::min(text.find_first_not_of(kSpaces, at), text.size());
    } else if (block.kind != '{' && at < text.size() && text[at] == '\n') {
      ++at;  // trim_blocks
      line_start = true;
    }
  }
  flush();
  return outputs;
}

}  // namespace pkv
