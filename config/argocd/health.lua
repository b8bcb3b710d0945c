-- Health of an ApiKey for Argo CD: it follows the condition Ready and has its message. See docs/gitops.md.
local health = { status = "Progressing", message = "the operator has not processed this key yet" }

if obj.metadata.deletionTimestamp ~= nil then
  health.message = "the key is being deleted"
  return health
end
if obj.status == nil or obj.status.conditions == nil or obj.status.observedGeneration ~= obj.metadata.generation then
  return health
end

local stalled = false
local remarks = ""
for _, condition in ipairs(obj.status.conditions) do
  if condition.type == "Ready" then
    health.message = condition.message
    if condition.status == "True" then
      health.status = "Healthy"
    end
  elseif condition.type == "Stalled" then
    stalled = condition.status == "True"
  elseif condition.status == "True" then
    -- Expiring, OutOfPolicy, RotationBlocked or ClockSkewed: the key works, but its owner should know.
    remarks = remarks .. "; " .. condition.message
  end
end
if stalled then
  health.status = "Degraded"
elseif health.status == "Healthy" then
  health.message = health.message .. remarks
end
return health
