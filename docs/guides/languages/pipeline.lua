#!/usr/bin/env lua5.4
-- A producer and two consumers, started in any order; see README.md. Run it in the root of a mount, after mkdir demo:
--	pipeline.lua consumer one & pipeline.lua consumer two & pipeline.lua producer
local control = ".promisefs/"
local own = control .. "own/demo-list"
local ENOENT, ECANCELED = 2, 125 -- io.open gives the number, but Lua has no names for them

-- The content of a file, or nil and what went wrong. What waits, waits in io.open.
local function try_get(path)
	local file, reason, code = io.open(path)
	if not file then return nil, reason, code end
	local text = assert(file:read("a"))
	assert(file:close())
	return (text:gsub("\n$", ""))
end

local function get(path)
	return assert(try_get(path))
end

local function put(path, text) -- what is written counts when it is closed, so that must not fail unseen
	local file = assert(io.open(path, "w"))
	assert(file:write(text))
	assert(file:close())
end

local function run(...) -- Lua itself can neither link nor make directories
	assert(os.execute(table.concat({...}, " ")))
end

local function consumer(me)
	local ref = control .. "ref/demo-" .. me

	-- A future that nobody has declared: the open waits until the key is published. Whoever comes late need not wait.
	local sum = 0
	for number in get(control .. "await/demo/numbers"):gmatch("%d+") do
		sum = sum + math.tointeger(number)
	end
	print(me .. ": the sum is " .. sum)

	-- A one-time object: the open takes it, of all who try one gets it. The others find no such file.
	local ticket, reason, code = try_get(control .. "once/demo/ticket")
	assert(ticket or code == ENOENT, reason)
	print(me .. ": the ticket is " .. (ticket and "mine: " .. ticket or "gone"))

	-- A borrow is a hard link. As long as it is there nobody can write the list or evict it.
	run("ln", own, ref)
	print(me .. ": scratch says: " .. get("demo/scratch/note"))
	put("demo/answer-" .. me, sum .. "\n") -- keeps the promise that the producer waits for

	-- A future that nobody will ever write, in a directory with a lease: the open waits until the lease is over.
	local never
	never, reason, code = try_get("demo/scratch/never")
	assert(not never and (code == ECANCELED or code == ENOENT), reason)
	never, reason, code = try_get("demo/scratch/note")
	assert(not never and code == ENOENT, reason)
	print(me .. ": scratch is gone")

	print(me .. ": the list is " .. get(ref)) -- a writer is in line by now, and does not get in
	assert(os.remove(ref)) -- until the last borrow is dropped
end

local function producer()
	put(own, "1 2 3\n") -- an object whose owner is a handle, not a key
	run("mkdir", "demo/scratch")
	put("demo/scratch/note", "not for long\n")
	for _, name in ipairs { "scratch/never", "answer-one", "answer-two" } do
		put(control .. "future/demo/" .. name, "") -- an empty file declares a future
	end
	put("demo/ticket", "admit one\n")
	local numbers = {}
	for number = 1, 100 do
		numbers[number] = number .. "\n"
	end
	put("demo/numbers", table.concat(numbers)) -- published, whole, when it is closed: this wakes the consumers

	for _, name in ipairs { "one", "two" } do
		print("producer: " .. name .. " answers " .. get("demo/answer-" .. name)) -- waits for the future
	end

	-- To write the list takes the only borrow there is. Both consumers borrow it now, so get in line.
	run("ln", own, control .. "await-mut/demo-writer")
	put(control .. "attributes/lease/demo/scratch/.dir", "100ms\n") -- the directory goes by itself
	put(control .. "mut/demo-writer", "1 2 3 4\n") -- the open waits for the turn
	assert(os.remove(control .. "mut/demo-writer"))
	print("producer: the list is " .. get(own))
	assert(os.remove(own)) -- nobody borrows it: evicted
end

if arg[1] == "producer" then producer() else consumer(arg[2]) end
