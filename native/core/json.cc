#include "core/json.h"

#include <charconv>
#include <cmath>

namespace jigsaw {

class JsonParser {
 public:
  explicit JsonParser(std::string_view text) : text_(text) {}

  Json document() {
    Json value = parse(0);
    skip();
    if (at_ != text_.size()) fail("unexpected text after the document");
    return value;
  }

 private:
  static constexpr int kMaxDepth = 64;

  // Number of members and elements for which memory is reserved: answers have about as many, and are parsed often.
  static constexpr size_t kReserved = 4;

  [[noreturn]] void fail(const char* what) const {
    throw FormatError("JSON: " + std::string(what) + " at byte " + std::to_string(at_));
  }

  void skip() {
    while (at_ < text_.size() && (text_[at_] == ' ' || text_[at_] == '\n' || text_[at_] == '\t' || text_[at_] == '\r'))
      at_++;
  }

  char peek() {
    skip();
    if (at_ == text_.size()) fail("the document ends early");
    return text_[at_];
  }

  bool take(char c) {
    if (peek() != c) return false;
    at_++;
    return true;
  }

  Json parse(int depth) {
    if (depth > kMaxDepth) fail("values are nested too deep");
    Json value;
    switch (peek()) {
      case '{':
        value.kind_ = Json::Kind::kObject;
        at_++;
        if (take('}')) return value;
        value.members_.reserve(kReserved);
        do {
          if (peek() != '"') fail("a member of an object has no name");
          std::string name = string();
          if (!take(':')) fail("the colon after a name is missing");
          value.members_.emplace_back(std::move(name), parse(depth + 1));
        } while (take(','));
        if (!take('}')) fail("an object is not closed");
        return value;
      case '[':
        value.kind_ = Json::Kind::kArray;
        at_++;
        if (take(']')) return value;
        value.items_.reserve(kReserved);
        do {
          value.items_.push_back(parse(depth + 1));
        } while (take(','));
        if (!take(']')) fail("an array is not closed");
        return value;
      case '"':
        value.kind_ = Json::Kind::kString;
        value.text_ = string();
        return value;
      case 't':
      case 'f':
        value.kind_ = Json::Kind::kBool;
        value.boolean_ = text_[at_] == 't';
        word(value.boolean_ ? "true" : "false");
        return value;
      case 'n':
        word("null");
        return value;
      default:
        value.kind_ = Json::Kind::kNumber;
        number(value);
        return value;
    }
  }

  void word(std::string_view expected) {
    if (text_.substr(at_, expected.size()) != expected) fail("unknown word");
    at_ += expected.size();
  }

  void number(Json& value) {
    size_t end = at_;
    bool integral = true;
    while (end < text_.size()) {
      char c = text_[end];
      bool digit = c >= '0' && c <= '9';
      if (!digit && c != '-' && c != '+' && c != '.' && c != 'e' && c != 'E') break;
      if (c == '.' || c == 'e' || c == 'E') integral = false;
      end++;
    }
    const char *first = text_.data() + at_, *last = text_.data() + end;
    if (integral) {
      auto [stop, error] = std::from_chars(first, last, value.integer_);
      value.integral_ = error == std::errc() && stop == last;
    }
    if (value.integral_) {
      value.number_ = double(value.integer_);
    } else {
      auto [stop, error] = std::from_chars(first, last, value.number_);
      if (error != std::errc() || stop != last) fail("invalid value");
    }
    at_ = end;
  }

  unsigned hex4() {
    if (text_.size() - at_ < 4) fail("an escape sequence ends early");
    unsigned code = 0;
    auto [stop, error] = std::from_chars(text_.data() + at_, text_.data() + at_ + 4, code, 16);
    if (error != std::errc() || stop != text_.data() + at_ + 4) fail("an escape sequence is not a hexadecimal number");
    at_ += 4;
    return code;
  }

  void append_utf8(std::string& out, unsigned code) {
    if (code < 0x80) {
      out += char(code);
    } else if (code < 0x800) {
      out += char(0xC0 | code >> 6);
      out += char(0x80 | (code & 0x3F));
    } else if (code < 0x10000) {
      out += char(0xE0 | code >> 12);
      out += char(0x80 | (code >> 6 & 0x3F));
      out += char(0x80 | (code & 0x3F));
    } else {
      out += char(0xF0 | code >> 18);
      out += char(0x80 | (code >> 12 & 0x3F));
      out += char(0x80 | (code >> 6 & 0x3F));
      out += char(0x80 | (code & 0x3F));
    }
  }

  std::string string() {
    std::string out;
    at_++;
    for (;;) {
      size_t start = at_;
      while (at_ < text_.size() && text_[at_] != '"' && text_[at_] != '\\') at_++;
      out.append(text_.substr(start, at_ - start));
      if (at_ == text_.size()) fail("a string is not closed");
      if (text_[at_++] == '"') return out;
      if (at_ == text_.size()) fail("a string is not closed");
      switch (text_[at_++]) {
        case '"':
          out += '"';
          break;
        case '\\':
          out += '\\';
          break;
        case '/':
          out += '/';
          break;
        case 'b':
          out += '\b';
          break;
        case 'f':
          out += '\f';
          break;
        case 'n':
          out += '\n';
          break;
        case 'r':
          out += '\r';
          break;
        case 't':
          out += '\t';
          break;
        case 'u': {
          unsigned code = hex4();
          if (code >= 0xD800 && code < 0xDC00 && text_.substr(at_, 2) == "\\u") {
            at_ += 2;
            unsigned low = hex4();
            if (low < 0xDC00 || low > 0xDFFF) fail("a surrogate pair is incomplete");
            code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
          }
          append_utf8(out, code);
          break;
        }
        default:
          fail("unknown escape sequence");
      }
    }
  }

  std::string_view text_;
  size_t at_ = 0;
};

namespace {

[[noreturn]] void throw_wrong_kind(std::string_view where, const char* expected) {
  throw FormatError(std::string(where) + " is not " + expected);
}

}  // namespace

Json Json::parse(std::string_view text) { return JsonParser(text).document(); }

const Json* Json::find(std::string_view name) const {
  for (const auto& [key, value] : members_)
    if (key == name) return &value;
  return nullptr;
}

const std::string& Json::string(std::string_view where) const {
  if (kind_ != Kind::kString) throw_wrong_kind(where, "a string");
  return text_;
}

double Json::number(std::string_view where) const {
  if (kind_ != Kind::kNumber || !std::isfinite(number_)) throw_wrong_kind(where, "a number");
  return number_;
}

int64_t Json::integer(std::string_view where) const {
  if (kind_ != Kind::kNumber || !integral_) throw_wrong_kind(where, "an integer");
  return integer_;
}

bool Json::boolean(std::string_view where) const {
  if (kind_ != Kind::kBool) throw_wrong_kind(where, "true or false");
  return boolean_;
}

const std::vector<Json>& Json::array(std::string_view where) const {
  if (kind_ != Kind::kArray) throw_wrong_kind(where, "an array");
  return items_;
}

const Json& Json::object(std::string_view where) const {
  if (kind_ != Kind::kObject) throw_wrong_kind(where, "an object");
  return *this;
}

const Json& Json::at(std::string_view name, std::string_view where) const {
  const Json* found = object(where).find(name);
  if (!found) throw FormatError(std::string(where) + " has no \"" + std::string(name) + "\"");
  return *found;
}

void append_json(std::string& out, std::string_view text) {
  static const char* kDigits = "0123456789abcdef";
  out += '"';
  for (char c : text) {
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (static_cast<unsigned char>(c) < 0x20) {
      out += "\\u00";
      out += kDigits[c >> 4];
      out += kDigits[c & 15];
    } else {
      out += c;
    }
  }
  out += '"';
}

}  // namespace jigsaw
