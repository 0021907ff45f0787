-- usage: lua workflow.lua MOUNTPOINT declare|consume N|produce|write
-- Lua itself has no link(2); ln(1) does it.
local mount, role, number = arg[1], arg[2], arg[3]
local guide, control = mount .. "/guide/", mount .. "/.promisefs/"
local ENOENT, EBUSY = 2, 16

local function read(path)
	local file, reason, code = io.open(path)
	if not file then return nil, reason, code end
	local text = file:read("a")
	file:close()
	return text
end

local function write(path, text)
	local file = assert(io.open(path, "w"))
	assert(file:write(text))
	assert(file:close())
end

local function link(old, new)
	assert(os.execute(string.format("ln '%s' '%s'", old, new)))
end

if role == "declare" then
	write(control .. "future/guide/numbers", "")
elseif role == "consume" then
	local sum = 0
	for word in assert(read(guide .. "numbers")):gmatch("%d+") do sum = sum + math.tointeger(word) end -- waits
	local token, reason, code = read(control .. "once/guide/token") -- one of all consumers gets it
	assert(token or code == ENOENT, reason)
	local handle = control .. "ref/guide-" .. number
	link(control .. "own/guide-list", handle) -- nobody writes it now
	local list = assert(read(handle))
	assert(os.remove(handle))
	write(guide .. "result-" .. number, string.format("%d %s %s\n", sum, token or "-", list))
elseif role == "produce" then
	write(guide .. "token", "token")
	write(control .. "own/guide-list", "1 2 3") -- an object without a key
	write(guide .. "scratch", "scratch")
	write(control .. "attributes/lease/guide/scratch", "500ms\n")
	write(guide .. "numbers", "1\n2\n3\n4\n5\n6\n7\n8\n9\n10\n") -- wakes the consumers
elseif role == "write" then
	link(control .. "own/guide-list", control .. "mut/guide") -- nobody else reads or writes it now
	local _, _, code = read(control .. "own/guide-list")
	assert(code == EBUSY, "it was read")
	write(control .. "mut/guide", "1 2 3 4")
	assert(os.remove(control .. "mut/guide"))
	assert(os.rename(control .. "own/guide-list", guide .. "list"))
end
