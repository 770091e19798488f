// Files of traces: lines of JSON. A full file is renamed, so that one older file is kept.
#pragma once

#include <string>

namespace jigsaw {

// Appends a line to a file, and creates the file and its folders if necessary. If the disk is full, the line is lost.
// Two threads must not write to the same file at once.
void append_line(const std::string& path, const std::string& line);

}  // namespace jigsaw
