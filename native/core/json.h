// Parser of JSON documents: specifications, routes, and answers of servers.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/base.h"

namespace jigsaw {

// A parsed JSON value. Objects keep the order of their members; the first of several members with the same name is
// used. A value is immutable after parsing, so several threads may read it.
class Json {
 public:
  enum class Kind : uint8_t { kNull, kBool, kNumber, kString, kArray, kObject };

  // Parses a whole document. Throws FormatError, with the byte offset of the error, if the document is invalid or
  // nested deeper than 64 levels.
  static Json parse(std::string_view text);

  Kind kind() const { return kind_; }
  bool is_null() const { return kind_ == Kind::kNull; }

  // Returns a member of an object, or nullptr.
  const Json* find(std::string_view name) const;

  // Elements of an array; empty for other kinds.
  const std::vector<Json>& items() const { return items_; }

  // Members of an object; empty for other kinds.
  const std::vector<std::pair<std::string, Json>>& members() const { return members_; }

  // Typed access. Each function throws FormatError, with `where` in the message, if the value has another kind.
  const std::string& string(std::string_view where) const;
  double number(std::string_view where) const;
  int64_t integer(std::string_view where) const;
  bool boolean(std::string_view where) const;
  const std::vector<Json>& array(std::string_view where) const;
  const Json& object(std::string_view where) const;

  // Returns a member of an object. Throws FormatError, with `where` in the message, if it is missing.
  const Json& at(std::string_view name, std::string_view where) const;

 private:
  friend class JsonParser;
  Kind kind_ = Kind::kNull;
  bool boolean_ = false;
  bool integral_ = false;
  int64_t integer_ = 0;
  double number_ = 0;
  std::string text_;
  std::vector<Json> items_;
  std::vector<std::pair<std::string, Json>> members_;
};

// Appends `text` as a JSON string, including the quotes.
void append_json(std::string& out, std::string_view text);

}  // namespace jigsaw
